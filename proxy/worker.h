// One worker: a thread, its loop, its listeners, sessions and connections.
// Nothing mutable is shared with other workers but what backend.h names.
//
// Threads: made, started and destroyed by the server's thread; everything else
// reaches a worker through Post().
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "proxy/net/loop.h"
#include "proxy/request/session.h"
#include "proxy/request/worker_context.h"

namespace penstock {

class Worker {
 public:
  Worker(std::unique_ptr<Loop> loop, uint32_t index, uint64_t seed, ProcessTotals& totals,
         uint32_t decisions);
  ~Worker();  // Stops.

  // Accepts from `sockets` as listener `id`, which is new; from Start() on. `tls`: as
  // of SetTls().
  void Listen(uint32_t id, const config::Listener& settings, std::vector<ListeningSocket> sockets,
              std::shared_ptr<const TlsServerContext> tls);
  // The settings of a listener have changed, but for its address.
  void Change(uint32_t id, const config::Listener& settings);
  // TLS for connections that a listener accepts from now on; null: plain.
  void SetTls(uint32_t id, std::shared_ptr<const TlsServerContext> context);
  // Takes what waits there and accepts no more; its connections end after their answer.
  void CloseListener(uint32_t id);
  void Start();
  // Without a thread: whoever made the loop runs it.
  void StartHere();

  // The policy file of the moment; `snapshot` is this worker's own.
  // One of `worker_count`, which share the pace of accepting.
  void SetSnapshot(std::shared_ptr<Snapshot> snapshot, std::shared_ptr<AccessLog> access_log,
                   uint32_t worker_count);
  // Takes what waits (if `take_waiting`) and accepts no more. Connections close after
  // their next answer; those that stay idle, when they have been so for kIdleGrace, and
  // not sooner than that from now: a request may be on its way.
  static constexpr MonoTime kIdleGrace = kSecond;
  void Drain(bool take_waiting);
  // Ends requests that are not streams; after Drain().
  void EndWhole();
  // Cuts what is still there and ends the thread.
  void Stop();
  void Join();  // Waits for the thread's end; after Stop().

  // Runs on the worker's thread; false: it has ended.
  bool Post(absl::AnyInvocable<void(WorkerContext&)> task);

  const WorkerMetrics& metrics() const { return metrics_; }
  WorkerMetrics& metrics() { return metrics_; }
  // Connections and requests of the moment; any thread.
  uint32_t busy() const { return busy_.load(std::memory_order_relaxed); }

 private:
  // One listener, with a socket or more, all of this worker's.
  struct Entry {
    uint32_t id = 0;
    std::shared_ptr<Entrance> entrance;
    std::vector<std::unique_ptr<Listener>> listeners;
  };

  // Runs on the worker's thread; at once where that has not begun.
  void Run(Loop::Task task);
  void LetGo();
  void Furnish(Entrance& entrance, std::shared_ptr<const TlsServerContext> context);
  void Accept(std::unique_ptr<Stream> stream, const std::shared_ptr<Entrance>& entrance);
  void Close(Entry& entry);
  void UpdateAccepting();
  void WatchBusy();
  void DrainLeaving();
  MonoTime GraceSince(MonoTime began) const;
  void Watch();

  const uint32_t index_;
  WorkerMetrics metrics_;
  const std::unique_ptr<Loop> loop_;
  std::unique_ptr<WorkerContext> context_;
  std::unique_ptr<SessionSet> sessions_;
  std::vector<Entry> entries_;
  // Closed while their connections end.
  std::vector<std::pair<std::shared_ptr<Entrance>, MonoTime>> leaving_;
  MonoTime drain_began_ = 0;
  Pace pace_;                     // Of accepting.
  StandingDelay delay_;
  bool paced_ = false;            // Waits for pace_ ...
  bool stopped_ = false;          // ... or for memory.
  std::atomic<uint32_t> busy_{0};
  TimerQueue::Timer busy_timer_, watch_timer_, pace_timer_;
  bool started_ = false;
  std::thread thread_;
};

}  // namespace penstock
