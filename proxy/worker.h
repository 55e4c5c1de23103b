// One worker: a thread, its loop, its listeners, sessions and connections.
// Nothing mutable is shared with other workers but what backend.h names.
//
// Threads: made, started and destroyed by the server's thread; everything else
// reaches a worker through Post().
#pragma once

#include <atomic>
#include <memory>
#include <thread>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "proxy/net/loop.h"
#include "proxy/request/session.h"
#include "proxy/request/worker_context.h"

namespace penstock {

class Worker {
 public:
  Worker(uint32_t index, uint64_t seed, ProcessTotals& totals, AccessLog* access_log,
         uint32_t decisions);
  ~Worker();  // Stops.

  // REQUIRES: not started. Returns the address with its real port.
  absl::StatusOr<Address> Listen(const Address& address, std::string_view name,
                                 std::shared_ptr<const Entrance> entrance);
  // TLS for connections that a listener (by its place, see Entrance) accepts from now
  // on; null: plain.
  void SetTls(size_t listener, std::shared_ptr<const TlsServerContext> context);
  void Start();

  // The policy file of the moment; `snapshot` is this worker's own.
  void SetSnapshot(std::shared_ptr<Snapshot> snapshot);
  // Accepts no more; idle connections close, the others after their answer.
  void Drain();
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
  void WatchBusy();
  void WatchDelay();

  const uint32_t index_;
  WorkerMetrics metrics_;
  const std::unique_ptr<Loop> loop_;
  std::unique_ptr<WorkerContext> context_;
  std::unique_ptr<SessionSet> sessions_;
  std::vector<std::unique_ptr<Listener>> listeners_;
  std::atomic<uint32_t> busy_{0};
  TimerQueue::Timer busy_timer_;
  TimerQueue::Timer delay_timer_;
  std::thread thread_;
};

}  // namespace penstock
