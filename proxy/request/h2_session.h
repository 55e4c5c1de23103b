// One client connection that speaks HTTP/2: many exchanges side by side, each a
// stream of its own. None waits for another: a stream whose client takes nothing
// pauses its own backend, keeps little more than Codec::kUnsentMark, and is reset
// when nothing of it moved for as long as an answer may be silent.
//
// Threads: the worker's thread only.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "proxy/base/deadline_wheel.h"
#include "proxy/http/codec.h"
#include "proxy/request/linger.h"
#include "proxy/request/session.h"

namespace penstock {

class H2Session final : public Session, public StreamReceiver, public CodecReceiver {
 public:
  // Between the two GOAWAYs of a drain: about a round trip, so that requests which
  // cross the first one are still taken.
  static constexpr MonoTime kGoAwayTime = 500 * kMillisecond;
  // A request that its client gave up keeps its place among the connection's streams
  // for so long, since its backend needs a moment to notice: resets free no work.
  static constexpr MonoTime kGivenUpTime = kSecond;

  H2Session(SessionSet& set, WorkerContext& context, std::unique_ptr<Stream> stream,
            std::shared_ptr<const Entrance> entrance);
  ~H2Session() override;

  // --- for its exchanges ---
  void WriteHead(MessageId id, const ResponseHead& head, std::span<const Header> extra) override;
  void WriteContinue(MessageId id) override;
  void WriteBody(MessageId id, std::string_view data) override;
  void WriteEnd(MessageId id, std::span<const Header> trailers) override;
  void Cut(MessageId id, bool at_once) override;
  void CloseAfterAnswer(MessageId) override {}  // The codec resets what nobody reads, NO_ERROR.
  void PauseBody(MessageId id) override;
  void ResumeBody(MessageId id) override;
  size_t unsent(MessageId id) const override;
  bool above_mark(MessageId id) override;
  void ExchangeDone(MessageId id, bool request_complete) override;
  ClientProtocol protocol() const override { return ClientProtocol::kHttp2; }
  std::string_view version() const override { return "HTTP/2"; }

  // --- for the worker ---
  void Drain(MonoTime idle_for) override;
  void CloseIdle(MonoTime idle_for) override;
  void EndWhole() override;
  size_t busy() const override;
  void Close() override;

  // --- called by the stream and the codec ---
  void OnData(std::string_view data) override;
  void OnStreamEnd(const absl::Status& status) override;
  void OnWritable() override;
  void OnRequest(MessageId id, RequestHead& head) override;
  void OnBody(MessageId id, std::string_view data) override;
  void OnMessageEnd(MessageId id, std::span<Header> trailers) override;
  void OnMessageReset(MessageId id, uint32_t error_code) override;
  void OnMessageRefused(MessageId id, const ProtocolError& error) override;
  void OnMessageWritable(MessageId id) override;
  void OnGoAway() override;
  void OnNearFlood() override;
  void OnProtocolError(const ProtocolError& error) override;

 private:
  enum class State : uint8_t { kOpen, kLingering, kClosed };
  // Between the two there is time for requests that cross the announcement.
  enum class Leaving : uint8_t { kNo, kAnnounced, kFinal };

  // One request. Without an exchange: its answer is whole or cut, and the codec still
  // has bytes of it that the client's window has no room for.
  struct Message {
    MessageId id = 0;
    std::unique_ptr<Exchange> exchange;
    bool cut = false;              // Reset as soon as what was said has gone.
    MonoTime patience = 0;         // Its client may take nothing for so long.
    size_t unsent = 0;             // When it was last looked at.
    MonoTime moved = 0;            // When the client last took something.
  };

  Message* Find(MessageId id);
  Exchange* ExchangeOf(MessageId id);
  void Let(MessageId id, bool cut);
  void Forget(MessageId id);
  void GiveUp(std::unique_ptr<Exchange> exchange);
  bool HasRoom();
  bool WakeWritable();
  void WakeAll();
  bool CutWhatIsSent();
  void Announce(H2GoAway reason);
  void AnnounceAndLeave(H2GoAway reason);
  void Leave(H2GoAway reason, uint32_t error_code = kNoError);
  void EndTurn();
  void CancelAll();
  void BeginLinger();
  void WatchHead();
  static void OnEndOfTurn(void* self, Gather&);
  static void OnIdle(void* self);
  static void OnHeadLate(void* self);
  static void OnUnsettled(void* self);
  static void OnSweep(void* self);
  static void OnLeave(void* self);
  void BeginIdle();
  MonoTime idle_time() const;

  std::unique_ptr<Codec> codec_;
  std::vector<Message> messages_;       // By id.
  std::vector<MessageId> writable_;     // Told by the codec; woken when it is done.
  std::vector<MonoTime> given_up_;      // When each place is free again; soonest first.
  Linger linger_;
  Deadline idle_;                       // No request for long; or lingering.
  Deadline head_;                       // A head that began to arrive.
  Deadline unsettled_;                  // Our settings that nobody acknowledges.
  Deadline sweep_;                      // Answers that wait for a window.
  Deadline leave_;                      // The second GOAWAY.
  MonoTime idle_since_ = 0;             // While there is no message.
  MessageId woken_last_ = 0;
  State state_ = State::kOpen;
  Leaving leaving_ = Leaving::kNo;
  bool failed_ = false;
  bool reading_ = true;
};

}  // namespace penstock
