// One client connection that speaks HTTP/1: one exchange at a time, in the order of
// pipelined requests; the next one begins when the answer before it is whole.
//
// Threads: the worker's thread only.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "proxy/base/deadline_wheel.h"
#include "proxy/http/codec.h"
#include "proxy/request/linger.h"
#include "proxy/request/session.h"

namespace penstock {

class H1Session final : public Session, public StreamReceiver, public CodecReceiver {
 public:
  // Bytes of pipelined requests kept while one is being answered.
  static constexpr size_t kPendingMax = 64 * 1024;

  H1Session(SessionSet& set, WorkerContext& context, std::unique_ptr<Stream> stream,
            std::shared_ptr<const Entrance> entrance);
  ~H1Session() override;

  // --- for its exchange ---
  void WriteHead(MessageId id, const ResponseHead& head, std::span<const Header> extra) override;
  void WriteContinue(MessageId id) override;
  void WriteBody(MessageId id, std::string_view data) override;
  void WriteEnd(MessageId id, std::span<const Header> trailers) override;
  void Cut(MessageId id, bool at_once) override;
  void CloseAfterAnswer(MessageId id) override;
  void PauseBody(MessageId id) override;
  void ResumeBody(MessageId id) override;
  size_t unsent(MessageId) const override { return writer_.pending(); }
  bool above_mark(MessageId id) override;
  void ExchangeDone(MessageId id, bool request_complete) override;
  ClientProtocol protocol() const override { return ClientProtocol::kHttp1; }
  std::string_view version() const override { return old_client_ ? "HTTP/1.0" : "HTTP/1.1"; }

  // --- for the worker ---
  void Drain(MonoTime idle_for) override;
  void CloseIdle(MonoTime idle_for) override;
  void EndWhole() override;
  size_t busy() const override { return exchange_ != nullptr ? 1 : 0; }
  void Close() override;

  // --- called by the stream and the codec ---
  void OnData(std::string_view data) override;
  void OnStreamEnd(const absl::Status& status) override;
  void OnWritable() override;
  void OnRequest(MessageId id, RequestHead& head) override;
  void OnBody(MessageId id, std::string_view data) override;
  void OnMessageEnd(MessageId id, std::span<Header> trailers) override;
  void OnProtocolError(const ProtocolError& error) override;

 private:
  enum class State : uint8_t { kOpen, kLingering, kClosed };

  void Decide(std::string_view data);
  void BecomeHttp2(std::string_view data);
  void Consume(std::string_view data);
  void AfterExchange();
  void EnterTunnel();
  void FeedPending();
  void StopReading();
  void GoOnReading();
  void ShutDown();
  void Leave();
  void BeginLinger();
  void SetHeaderDeadline();
  void SetIdleDeadline();
  MonoTime patience() const;
  static void OnDeadline(void* self);

  std::unique_ptr<Codec> codec_;
  Deadline deadline_;
  std::unique_ptr<Exchange> exchange_;
  std::string pending_;
  Linger linger_;
  State state_ = State::kOpen;
  bool undecided_ = false;       // It may turn out to be HTTP/2.
  bool feeding_ = false;
  bool reading_ = true;
  bool header_timer_ = false;
  bool close_after_answer_ = false;
  bool tunnel_ = false;          // The answer was 101.
  bool takes_trailers_ = false;  // The client of the moment said so.
  bool old_client_ = false;      // HTTP/1.0.
  bool cut_ = false;             // The end of lingering is a reset.
  MonoTime idle_since_ = 0;
  std::optional<MonoTime> patience_;   // Of the last exchange, if it met a pool.
};

}  // namespace penstock
