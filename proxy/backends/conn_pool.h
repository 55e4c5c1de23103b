// One worker's connections to one backend: gives a request a connection (an
// idle one at once, else a fresh one) and takes it back when the answer is whole.
// A connection that comes back dirty is closed, never reused.
//
// Threads: the worker's thread only.
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <string>
#include <vector>

#include "proxy/backends/backend.h"
#include "proxy/base/deadline_wheel.h"
#include "proxy/http/codec.h"
#include "proxy/net/dialer.h"
#include "proxy/net/turn.h"

namespace penstock {

// Why a connection can carry no answer.
struct ConnFailure {
  enum class Kind : uint8_t {
    kConnect,
    kConnectTimeout,
    kNoSocket,                 // Ours: no descriptor or port was left to connect with.
    kReset,
    kBadAnswer,
  };
  Kind kind = Kind::kReset;
  bool reused = false;         // The connection had carried an answer before.
  bool answer_begun = false;   // Some byte of this answer had arrived.
  std::string message;
};

class ConnPool;

// One connection to a backend; carries one request at a time on HTTP/1.
class BackendConn final : public StreamReceiver, public CodecReceiver {
 public:
  // Whoever's request the connection carries. After OnAnswerEnd and OnConnFailed
  // the connection has forgotten its user.
  class User {
   public:
    virtual void OnConnReady(BackendConn& conn) = 0;   // Never from inside Acquire().
    virtual void OnAnswerHead(ResponseHead& head) = 0;
    virtual void OnAnswerInterim(ResponseHead& head) = 0;
    virtual void OnAnswerBody(std::string_view data) = 0;
    virtual void OnAnswerEnd(std::span<Header> trailers) = 0;
    virtual void OnConnFailed(const ConnFailure& failure) = 0;
    virtual void OnConnWritable() = 0;

   protected:
    ~User() = default;
  };

  BackendConn(ConnPool& pool, std::unique_ptr<Stream> stream);

  // --- for the user ---
  void WriteRequest(const RequestHead& head, std::span<const Header> extra);
  void WriteBody(std::string_view data);
  void WriteEnd();
  bool above_mark();           // OnConnWritable follows.
  void PauseAnswer();
  void ResumeAnswer();
  // The user loses interest. An answer that is already whole or nearly so lets the
  // connection be reused; otherwise it is closed, which tells the backend to stop.
  void Leave();

  // --- called by the stream and the codec ---
  void OnData(std::string_view data) override;
  void OnStreamEnd(const absl::Status& status) override;
  void OnWritable() override;
  void OnResponse(MessageId id, ResponseHead& head) override;
  void OnInterim(MessageId id, ResponseHead& head) override;
  void OnBody(MessageId id, std::string_view data) override;
  void OnMessageEnd(MessageId id, std::span<Header> trailers) override;
  void OnProtocolError(const ProtocolError& error) override;

 private:
  friend class ConnPool;
  void Fail(ConnFailure::Kind kind, std::string message);
  void Close();

  ConnPool& pool_;
  std::unique_ptr<Stream> stream_;
  std::unique_ptr<Codec> codec_;
  Writer writer_;
  User* user_ = nullptr;
  MessageId message_ = 0;
  bool reused_ = false;
  bool answer_begun_ = false;
  bool request_ended_ = false;
  bool ended_ = false;         // The backend sends no more.
  bool closed_ = false;
  bool feeding_ = false;       // Inside OnData.
  MonoTime idle_since_ = 0;
  size_t index_ = 0;           // In the pool's list of connections.
};

struct ConnPoolLimits {
  size_t idle = 256;                       // Kept open per backend and worker.
  MonoTime idle_timeout = 60 * kSecond;
  uint32_t worker = 0;                     // Whose connections these are, for the counters.
  CodecLimits codec;
};

class ConnPool {
 public:
  // `backend` outlives the pool; connections go to its address of the moment.
  ConnPool(std::shared_ptr<Backend> backend, Dialer& dialer, DeadlineWheel& wheel, Turn& turn,
           const ConnPoolLimits& limits);
  ~ConnPool();

  // Finds `user` a connection. An idle one is returned at once; otherwise a dial
  // begins, nullptr is returned, and OnConnReady or OnConnFailed follows.
  // `fresh`: do not take an idle one (it might be as dead as the last).
  BackendConn* Acquire(BackendConn::User& user, MonoTime connect_timeout, bool fresh);
  // Gives up a dial that Acquire began. Unknown users are ignored.
  void Cancel(BackendConn::User& user);

  size_t open() const { return conns_.size(); }
  size_t idle() const { return idle_.size(); }
  bool in_use() const { return open() > idle() || !dialing_.empty(); }
  const Backend& backend() const { return *backend_; }

 private:
  friend class BackendConn;
  struct Dialing {
    BackendConn::User* user;
    std::unique_ptr<Dialer::Pending> pending;
  };
  void OnDialed(std::list<Dialing>::iterator dialing, absl::StatusOr<std::unique_ptr<Stream>> stream);
  void PutBack(BackendConn& conn);
  void Remove(BackendConn& conn);
  static void OnSweep(void* self);

  const std::shared_ptr<Backend> backend_;
  Dialer& dialer_;
  DeadlineWheel& wheel_;
  Turn& turn_;
  const ConnPoolLimits limits_;
  std::vector<std::unique_ptr<BackendConn>> conns_;
  std::vector<BackendConn*> idle_;         // Longest idle first; taken from the back.
  std::list<Dialing> dialing_;
  Deadline sweep_;
};

}  // namespace penstock
