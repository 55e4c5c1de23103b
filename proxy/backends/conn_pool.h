// One worker's connections to one backend: gives each request a call on one of
// them, and closes what is idle for too long.
//
//   HTTP/1  an idle connection at once, else a dial of the request's own; what comes
//           back dirty is closed, never reused
//   HTTP/2  the first connection that has room; else the request waits, first come,
//           first served, for a stream that ends or for a connection that is dialled
//           for those who wait
//
// Which of the two a backend of `auto` speaks is known from the first connection on.
// When its address changes, what is connected to the old one takes no new request: idle
// connections are closed, the others end with what they carry.
// How many may wait is bounded by the backend's max_requests.
//
// Threads: the worker's thread only.
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <vector>

#include "proxy/backends/backend.h"
#include "proxy/backends/backend_dialer.h"
#include "proxy/backends/backend_call.h"
#include "proxy/backends/h1_conn.h"
#include "proxy/backends/h2_conn.h"
#include "proxy/base/deadline_wheel.h"
#include "proxy/http/codec.h"
#include "proxy/net/dialer.h"
#include "proxy/net/turn.h"

namespace penstock {

struct ConnPoolLimits {
  size_t idle = 256;                       // HTTP/1: kept open per backend and worker.
  MonoTime idle_timeout = 60 * kSecond;
  uint32_t worker = 0;                     // Whose connections these are, for the counters.
  CodecLimits codec;
  config::Protocol protocol = config::Protocol::kAuto;
  bool tls = false;                        // kAuto: connections agree on one (ALPN).
  // HTTP/2:
  size_t connections = 16;                 // Open or being dialled.
  MonoTime ping_interval = 0;              // Silence that a PING follows; 0: none does.
  MonoTime ping_timeout = 5 * kSecond;

  bool operator==(const ConnPoolLimits&) const = default;
};
ConnPoolLimits LimitsOf(const config::Connections& settings, uint32_t worker, bool tls = false);

class ConnPool {
 public:
  // `backend` outlives the pool; connections go to its address of the moment.
  ConnPool(std::shared_ptr<Backend> backend, Dialer& dialer, DeadlineWheel& wheel, Turn& turn,
           const ConnPoolLimits& limits);
  ~ConnPool();

  // From now on, as another policy file says; what is open stays.
  void SetLimits(const ConnPoolLimits& limits);
  const ConnPoolLimits& limits() const { return limits_; }

  // Finds `user` a call: returned at once, or OnConnReady or OnConnFailed follows
  // nullptr within about `connect_timeout`.
  // `fresh`: on HTTP/1, do not take an idle connection (it might be as dead as the last).
  // `only_http1`: HTTP/2 cannot carry it; where TLS would agree on that, it is not offered.
  BackendCall* Acquire(BackendCall::User& user, MonoTime connect_timeout, bool fresh,
                       bool only_http1 = false);
  // Gives up what Acquire began. Unknown users are ignored.
  void Cancel(BackendCall::User& user);

  size_t open() const { return h1_.size() + h2_.size(); }
  size_t idle() const;
  size_t waiting() const { return waiting_.size(); }
  bool in_use() const;
  const Backend& backend() const { return *backend_; }

 private:
  friend class H1Conn;
  friend class H2Conn;
  enum class Speaks : uint8_t { kUnknown, kHttp1, kHttp2 };
  struct Dialing {
    BackendCall::User* user;               // Null: for those who wait.
    bool only_http1;
    uint32_t place;                        // Backend::moves() at its beginning.
    std::unique_ptr<Dialer::Pending> pending;
  };
  struct Waiting {
    Waiting(ConnPool& pool_in, BackendCall::User& user_in)
        : pool(pool_in), user(user_in), deadline(pool_in.wheel_, &ConnPool::OnWaited, this) {}
    ConnPool& pool;
    BackendCall::User& user;
    Deadline deadline;
  };

  void Dial(BackendCall::User* user, MonoTime timeout, bool only_http1 = false);
  void DialForWaiting();
  void OnDialed(std::list<Dialing>::iterator dialing, absl::StatusOr<std::unique_ptr<Stream>> stream);
  void OnDialFailed(BackendCall::User* user, const absl::Status& status);
  void AddH1(std::unique_ptr<Stream> stream, uint32_t place, BackendCall::User* user);
  void AddH2(std::unique_ptr<Stream> stream, uint32_t place, BackendCall::User* user);
  void ServeWaiting();
  void FailWaiting(ConnFailure::Kind kind, const std::string& message);
  static void OnWaited(void* waiting);
  void FollowBackend();
  bool moved(uint32_t place) const { return place != backend_->moves(); }
  H2Conn* WithRoom();
  Speaks SpeaksOf(const Stream& stream) const;
  BackendState::WorkerCells& cells() { return backend_->state.worker(limits_.worker); }

  // For the connections.
  void PutBack(H1Conn& conn);
  void Remove(H1Conn& conn);
  void Remove(H2Conn& conn);
  // HTTP/2: something has ended or begun: closes what is used up, serves who waits.
  void Settle();
  void SettleSoon();                       // At the end of this turn.
  void ArmSweep();
  static void OnSweep(void* self);

  const std::shared_ptr<Backend> backend_;
  BackendDialer dialer_, http1_dialer_;
  DeadlineWheel& wheel_;
  Turn& turn_;
  ConnPoolLimits limits_;
  uint32_t place_;                         // Backend::moves(), when it was last looked at.
  Speaks speaks_ = Speaks::kUnknown;
  std::vector<std::unique_ptr<H1Conn>> h1_;
  std::vector<H1Conn*> idle_;              // HTTP/1, longest idle first; taken from the back.
  std::vector<std::unique_ptr<H2Conn>> h2_;
  std::list<Dialing> dialing_;
  std::list<Waiting> waiting_;             // For a stream, first come first.
  size_t shared_dials_ = 0;                // Dials for those who wait.
  size_t streams_hint_ = 1;                // Streams that a new connection is expected to bring.
  bool settle_due_ = false;
  Deadline sweep_;
};

}  // namespace penstock
