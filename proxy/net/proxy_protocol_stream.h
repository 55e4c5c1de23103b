// A stream whose first bytes are a PROXY protocol header: it takes them off, and its
// peer is the one that they announce. Whoever reads it hears of nothing before the
// header is whole, and of an end where it is wrong, or late.
//
// Threads: the loop's thread only.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/functional/any_invocable.h"
#include "proxy/base/deadline_wheel.h"
#include "proxy/net/stream.h"

namespace penstock {

class ProxyProtocolStream final : public Stream, public StreamReceiver {
 public:
  static constexpr MonoTime kHeaderTime = 10 * kSecond;  // From accept to the header's end.
  enum class Fault : uint8_t { kInvalid, kTimeout };

  // `on_fault` is called at most once, before the end is told.
  ProxyProtocolStream(std::unique_ptr<Stream> inner, DeadlineWheel& wheel,
                      absl::AnyInvocable<void(Fault)> on_fault);

  void SetReceiver(StreamReceiver* receiver) override { receiver_ = receiver; }
  void Resume() override;
  void Pause() override { inner_->Pause(); }
  using Stream::Write;
  void Write(std::span<const std::string_view> pieces) override { inner_->Write(pieces); }
  size_t buffered() const override { return inner_->buffered(); }
  size_t high_mark() const override { return inner_->high_mark(); }
  void Shutdown() override { inner_->Shutdown(); }
  void Reset() override;
  bool secure() const override { return secure_ || inner_->secure(); }
  std::string_view peer() const override { return announced_.empty() ? inner_->peer() : announced_; }

  void OnData(std::string_view data) override;
  void OnStreamEnd(const absl::Status& status) override;
  void OnWritable() override;

 private:
  void Fail(Fault fault, std::string_view why);
  static void OnLate(void* self);

  const std::unique_ptr<Stream> inner_;
  StreamReceiver* receiver_ = nullptr;
  Deadline deadline_;
  absl::AnyInvocable<void(Fault)> on_fault_;
  std::string begun_;            // Of a header that is not whole.
  std::string announced_;
  bool secure_ = false;          // Says the header.
  bool open_ = true;             // The header is still awaited.
  bool failed_ = false;
};

}  // namespace penstock
