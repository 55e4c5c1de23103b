// One client connection: owns its stream, its codec and its live exchanges;
// destroying it cancels them all. On HTTP/1 it keeps the order of pipelined
// requests: the next one begins when the answer before it is whole.
//
// Threads: the worker's thread only.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "proxy/base/deadline_wheel.h"
#include "proxy/http/codec.h"
#include "proxy/net/stream.h"
#include "proxy/net/turn.h"
#include "proxy/request/worker_context.h"

namespace penstock {

class Exchange;
class SessionSet;

class Session final : public StreamReceiver, public CodecReceiver {
 public:
  // Bytes of pipelined requests kept while one is being answered.
  static constexpr size_t kPendingMax = 64 * 1024;

  Session(SessionSet& set, WorkerContext& context, std::unique_ptr<Stream> stream,
          bool debug_headers);
  ~Session();

  // --- for its exchange ---
  void WriteHead(MessageId id, const ResponseHead& head, std::span<const Header> extra);
  void WriteContinue(MessageId id);
  void WriteBody(MessageId id, std::string_view data);
  void WriteEnd(MessageId id);
  // Cuts the answer so that every client sees that it is not whole: by a reset, as
  // soon as what was said so far has had the time to arrive (`at_once`: now).
  // REQUIRES: the exchange has finished.
  void Cut(bool at_once);
  // No request follows on this connection; the current answer says so.
  void CloseAfterAnswer();
  void PauseBody();
  void ResumeBody();
  size_t unsent() const { return writer_.pending(); }
  // Whoever stops because of it hears of OnClientWritable.
  bool above_mark();
  std::string_view peer() const { return stream_->peer(); }
  bool debug_headers() const { return debug_headers_; }
  // The exchange is over, answered or cut; it is given back to the worker.
  void ExchangeDone(Exchange& exchange, bool request_complete);

  // Closes at the next moment without a request (now, if there is none).
  void Drain();
  // Ends a request that is not a stream.
  void EndWhole();
  bool busy() const { return exchange_ != nullptr; }
  void Close();

  // --- called by the stream and the codec ---
  void OnData(std::string_view data) override;
  void OnStreamEnd(const absl::Status& status) override;
  void OnWritable() override;
  void OnRequest(MessageId id, RequestHead& head) override;
  void OnBody(MessageId id, std::string_view data) override;
  void OnMessageEnd(MessageId id, std::span<Header> trailers) override;
  void OnProtocolError(const ProtocolError& error) override;

 private:
  friend class SessionSet;
  enum class State : uint8_t { kOpen, kLingering, kClosed };

  void Consume(std::string_view data);
  void AfterExchange();
  void Linger();
  void BeginLinger();
  bool StillSending();
  MonoTime linger_time() const;
  void SetIdleDeadline();
  static void OnDeadline(void* self);

  SessionSet& set_;
  WorkerContext& context_;
  std::unique_ptr<Stream> stream_;
  std::unique_ptr<Codec> codec_;
  Writer writer_;
  Deadline deadline_;
  std::unique_ptr<Exchange> exchange_;
  std::string pending_;
  const bool debug_headers_;
  State state_ = State::kOpen;
  bool feeding_ = false;
  bool reading_ = true;
  bool header_timer_ = false;
  bool close_after_answer_ = false;
  bool cut_ = false;             // The end of lingering is a reset.
  size_t unsent_ = 0;            // While lingering, when it was last looked at.
  MonoTime moved_ = 0;           // While lingering: when the client last took something.
  size_t index_ = 0;             // In the set.
};

// The sessions of one worker.
class SessionSet {
 public:
  explicit SessionSet(WorkerContext& context) : context_(context) {}
  ~SessionSet();

  void Accept(std::unique_ptr<Stream> stream, bool debug_headers);
  void Drain();
  void EndWhole();
  void CloseAll();
  size_t size() const { return sessions_.size(); }
  size_t busy() const;

 private:
  friend class Session;
  void Remove(Session& session);

  WorkerContext& context_;
  std::vector<std::unique_ptr<Session>> sessions_;
};

}  // namespace penstock
