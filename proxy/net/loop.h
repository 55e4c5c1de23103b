// One thread's event loop over libuv: the only code that reads the clock.
//
// Threads: everything belongs to the thread that calls Run(), except Post() and
// Stop(), which are safe from any thread.
#pragma once

#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "proxy/base/deadline_wheel.h"
#include "proxy/base/time.h"
#include "proxy/base/timer_queue.h"
#include "proxy/net/address.h"
#include "proxy/net/dialer.h"
#include "proxy/net/listening_socket.h"
#include "proxy/net/stream.h"

namespace penstock {

// Accepts while it lives.
class Listener {
 public:
  virtual ~Listener() = default;
  virtual const Address& address() const = 0;  // With the real port where 0 was asked.
  // While paused, connections wait in the kernel. Both may be called in the callback
  // of a connection.
  virtual void Pause() = 0;
  virtual void Resume() = 0;
  // Accepts what waits in the kernel now; before it goes, so that nobody is turned away
  // who came in time.
  virtual void AcceptWaiting() = 0;
};

class Loop {
 public:
  using Task = absl::AnyInvocable<void()>;
  using AcceptCallback = absl::AnyInvocable<void(std::unique_ptr<Stream>)>;
  static constexpr size_t kPostMax = 1 << 16;

  static std::unique_ptr<Loop> Create();
  // The wall clock, for whoever has no loop.
  static absl::Time ReadWallClock();
  virtual ~Loop() = default;              // REQUIRES: not running; streams and listeners are gone.

  virtual void Run() = 0;                 // Until Stop().
  virtual void Stop() = 0;                // Any thread.

  // Runs `task` on this loop's thread, in order of posting; false: the loop has
  // ended or kPostMax tasks are waiting, and the task was dropped.
  virtual bool Post(Task task) = 0;       // Any thread.

  virtual MonoTime now() const = 0;       // Constant during a turn of the loop.
  virtual absl::Time wall_now() const = 0;   // For logs and headers.
  // Reads the clock now: for measuring, where a turn is too coarse.
  virtual MonoTime ReadClock() const = 0;

  // `task` runs each time before the loop waits for what comes next, in place of the one
  // of before; an empty one: nothing does. It calls nobody who would wait for the turn.
  virtual void BeforeWait(Task task) = 0;

  virtual TimerQueue& timers() = 0;
  virtual DeadlineWheel& deadlines() = 0;
  virtual Dialer& dialer() = 0;

  // Listens with SO_REUSEPORT, so that every worker may have its own. The error
  // names the address and, for a busy port, says so and what to do.
  virtual absl::StatusOr<std::unique_ptr<Listener>> Listen(const Address& address,
                                                           AcceptCallback on_accept) = 0;

  virtual std::unique_ptr<Listener> Listen(ListeningSocket socket, AcceptCallback on_accept) = 0;

  // Calls back while there is something to read from `descriptor` (or its other end
  // is gone), while the handle lives. The descriptor stays the caller's.
  class ReadableWatch {
   public:
    virtual ~ReadableWatch() = default;
  };
  virtual std::unique_ptr<ReadableWatch> OnReadable(int descriptor, Task task) = 0;

  // Calls back whenever `signal` (SIGTERM, SIGHUP, ...) arrives, while the handle lives.
  class SignalWatch {
   public:
    virtual ~SignalWatch() = default;
  };
  virtual std::unique_ptr<SignalWatch> OnSignal(int signal, Task task) = 0;
  // For a process on its way out, before its watches go: one that comes late would end it
  // by signal, with what is left to do undone.
  static void IgnoreFromNowOn(std::span<const int> signals);

  // Runs `work` on a thread beside the loop and then `done` on the loop.
  virtual void Offload(Task work, Task done) = 0;

  // Resolves a host name beside the loop (getaddrinfo; no cache of ours).
  virtual void Resolve(std::string_view host, uint16_t port,
                       absl::AnyInvocable<void(absl::StatusOr<std::vector<Address>>)> done) = 0;
};

}  // namespace penstock
