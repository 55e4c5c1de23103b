// Two ends of a connection in memory. Nothing is delivered until Step() is
// called, so a test decides when bytes arrive, how many at a time, and how much
// the "kernel" between the ends takes before the writer has to buffer.
//
// It behaves as TCP does: an end that goes away ends its bytes, or resets the
// connection if it left bytes unread; a reset drops what was under way; bytes to
// an end that is gone fail the writer.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "proxy/net/stream.h"

namespace penstock {

class MemoryStream;

struct MemoryLinkOptions {
  size_t deliver_bytes = 64 * 1024;  // At most so many in one OnData.
  size_t window_bytes = 1 << 20;     // What is taken from a writer before it buffers.
  size_t high_mark = 256 * 1024;
  uint64_t seed = 0;  // Not 0: deliveries are cut at random, up to deliver_bytes.
};

// What lies between the two ends; outlives both.
class MemoryLink {
 public:
  explicit MemoryLink(const MemoryLinkOptions& options)
      : options_(options), random_(options.seed) {}

  // Delivers to each end what one read would bring. False: nothing was to do.
  bool Step();
  void Break();  // As if the network had reset it: both ends see an error.
  bool gone() const { return ends_[0] == nullptr && ends_[1] == nullptr; }

  size_t under_way(size_t to) const { return to_[to].bytes.size(); }

  MemoryLinkOptions& options() { return options_; }  // May be changed as the test goes.

 private:
  friend class MemoryStream;
  friend struct MemoryPair;
  // Bytes on their way to one end.
  struct Direction {
    std::string bytes;
    size_t together_from = 0, together_to = 0;  // Of `bytes`: no delivery ends between them.
    std::string delivered;    // What the last OnData brought; kept, so that no delivery allocates.
    bool ended = false;  // No more will come.
    bool reset = false;
    bool end_told = false;
    bool above_mark = false;  // The writer went above its mark and awaits OnWritable.
  };

  bool StepEnd(size_t end);
  size_t Cut(Direction& incoming);
  size_t buffered(size_t to) const;

  MemoryLinkOptions options_;
  uint64_t random_;
  std::array<MemoryStream*, 2> ends_{};
  std::array<Direction, 2> to_;  // Indexed by the end that the bytes go to.
};

class MemoryStream final : public Stream {
 public:
  MemoryStream(std::shared_ptr<MemoryLink> link, size_t end, std::string peer);
  ~MemoryStream() override;

  void SetReceiver(StreamReceiver* receiver) override { receiver_ = receiver; }
  void Resume() override { paused_ = false; }
  void Pause() override { paused_ = true; }
  using Stream::Write;
  void Write(std::span<const std::string_view> pieces) override;
  // One read will bring it, and the byte before it, if that is still under way.
  void WriteTogether(std::string_view bytes);
  size_t buffered() const override { return link_->buffered(1 - end_); }
  size_t high_mark() const override { return link_->options_.high_mark; }
  void Shutdown() override { link_->to_[1 - end_].ended = true; }
  void Reset() override;
  std::string_view peer() const override { return peer_; }
  const TlsInfo* tls() const override { return tls_.has_value() ? &*tls_ : nullptr; }
  void SetTls(TlsInfo tls) { tls_ = std::move(tls); }   // As if a handshake had settled it.

 private:
  friend class MemoryLink;
  const std::shared_ptr<MemoryLink> link_;
  const size_t end_;
  const std::string peer_;
  StreamReceiver* receiver_ = nullptr;
  bool paused_ = true;
  std::optional<TlsInfo> tls_;
};

struct MemoryPair {
  explicit MemoryPair(const MemoryLinkOptions& options = {});
  std::shared_ptr<MemoryLink> link;
  std::unique_ptr<MemoryStream> a;
  std::unique_ptr<MemoryStream> b;
};

}  // namespace penstock
