// One worker's connections to one backend: gives a request a connection (an
// idle one at once, else a fresh one) and takes it back when the answer is whole.
// A connection that comes back dirty is closed, never reused.
//
// Threads: the worker's thread only.
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <vector>

#include "proxy/backends/backend.h"
#include "proxy/backends/backend_call.h"
#include "proxy/backends/h1_conn.h"
#include "proxy/base/deadline_wheel.h"
#include "proxy/http/codec.h"
#include "proxy/net/dialer.h"
#include "proxy/net/turn.h"

namespace penstock {

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
  BackendCall* Acquire(BackendCall::User& user, MonoTime connect_timeout, bool fresh);
  // Gives up a dial that Acquire began. Unknown users are ignored.
  void Cancel(BackendCall::User& user);

  size_t open() const { return conns_.size(); }
  size_t idle() const { return idle_.size(); }
  bool in_use() const { return open() > idle() || !dialing_.empty(); }
  const Backend& backend() const { return *backend_; }

 private:
  friend class H1Conn;
  struct Dialing {
    BackendCall::User* user;
    std::unique_ptr<Dialer::Pending> pending;
  };
  void OnDialed(std::list<Dialing>::iterator dialing, absl::StatusOr<std::unique_ptr<Stream>> stream);
  void PutBack(H1Conn& conn);
  void Remove(H1Conn& conn);
  static void OnSweep(void* self);

  const std::shared_ptr<Backend> backend_;
  Dialer& dialer_;
  DeadlineWheel& wheel_;
  Turn& turn_;
  const ConnPoolLimits limits_;
  std::vector<std::unique_ptr<H1Conn>> conns_;
  std::vector<H1Conn*> idle_;         // Longest idle first; taken from the back.
  std::list<Dialing> dialing_;
  Deadline sweep_;
};

}  // namespace penstock
