// What changes about one backend: load, latency, health, breaker. Every worker
// and the control thread write and read it, so each figure is one atomic word
// (or a seqlock, for the last load report), and none needs another to be right.
//
// In flight       requests begun and not ended, all workers together.
// Sent since      requests sent since the moment that the last report describes.
//                 The last kSentKept send times are kept in a ring. When a report
//                 made at time t arrives, however late, the ring tells how many
//                 were sent after t, and the report is stored with the running
//                 total as of t: its mark. "Sent since" is total less mark.
// First token     peak-EWMA: jumps up at once, falls with time constant tau.
// Oldest wait     per worker, when the oldest request without a first token was sent.
//
// Threads: any, unless a function says otherwise. Time is told.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "config/config.h"
#include "proxy/backends/breaker.h"
#include "proxy/backends/load_report.h"
#include "proxy/backends/worker_metrics.h"
#include "proxy/base/time.h"

namespace penstock {

enum class Health : uint8_t {
  kUnknown,    // Not checked yet: used like a healthy one.
  kHealthy,
  kUnhealthy,  // Failed its checks; used in panic only.
  kDown,       // Refuses connections: nothing listens there. Not used even in panic.
};
inline constexpr size_t kHealths = 4;
std::string_view Name(Health health);

// A latency with the time of its last observation, in one word.
struct Latency {
  float seconds = -1;            // Negative: no data.
  MonoTime idle = 0;             // Since the last observation.

  // An idle figure drifts to the median of its pool, so that a backend that was
  // once slow is tried again. No data stays no data.
  float Towards(float median, MonoTime tau) const;
};

// Why a connection to a backend failed, for the counter of that name.
enum class ConnectFailure : uint8_t { kRefused, kTimeout, kUnreachable, kReset, kTls };
inline constexpr std::array<std::string_view, 5> kConnectFailureNames = {
    "refused", "timeout", "unreachable", "reset", "tls"};

class BackendState {
 public:
  static constexpr size_t kSentKept = 1024;
  static constexpr MonoTime kFaultLatency = 5 * kSecond;   // What a fault counts as.
  static constexpr MonoTime kRestMax = 5 * kSecond;        // Longest rest of a busy backend.
  static constexpr MonoTime kRestDefault = kSecond;        // Busy without Retry-After.

  // What one worker alone writes about this backend; padded against false sharing.
  struct alignas(64) WorkerCells {
    std::atomic<MonoTime> oldest_wait{kNever};
    std::array<Cell, kProtocolNames.size()> connections;   // Open, idle ones too.
    Cell streams;                                          // HTTP/2: open now.
    Cell streams_refused;                                  // REFUSED_STREAM, or passed over by a GOAWAY.
    Cell goaways;
    Cell http2_errors;                                     // Connections closed for what the backend sent.
    std::array<Cell, kConnectFailureNames.size()> connect_failures;
    std::array<Cell, kCodes> answers;                      // By status code.
    Cell rejected_breaker;                                 // Left out of a pick: breaker open.
    Cell rejected_full;                                    // Left out: max_requests reached.

    void AddConnectFailure(ConnectFailure reason) {
      connect_failures[static_cast<size_t>(reason)].Add();
    }
  };
  // For the worker's own thread; others only read. REQUIRES: worker < kMaxWorkers.
  WorkerCells& worker(uint32_t worker) { return workers_[worker]; }
  // From now on this worker may have requests here. REQUIRES: worker < kMaxWorkers.
  void AddWorker(uint32_t worker);
  const WorkerCells& worker(uint32_t worker) const { return workers_[worker]; }

  // --- requests ---
  void Sent(MonoTime now);
  void Ended() { in_flight_.fetch_sub(1, std::memory_order_relaxed); }
  uint32_t in_flight() const { return in_flight_.load(std::memory_order_relaxed); }
  uint64_t sent_total() const { return sent_.load(std::memory_order_relaxed); }
  // When the oldest request without a first token was sent; kNever: there is none.
  MonoTime oldest_wait() const;

  // --- time to first token ---
  void ObserveTtft(MonoTime elapsed, MonoTime now, MonoTime tau);
  Latency ttft(MonoTime now) const;
  // It came back: what it was like before says nothing about it now.
  void ForgetTtft() { ttft_.store(0, std::memory_order_relaxed); }

  // --- load reports ---
  enum class Publish : uint8_t {
    kTaken,
    kOld,        // From an earlier epoch, or made before the one that is there.
    kOutranked,  // A fresh report of a better rung is there.
    kBusy,       // Another thread publishes at this moment; `wait` was false.
  };
  // `fresh_for`: how long a better rung's report keeps this one out.
  Publish PublishReport(const LoadReport& report, MonoTime fresh_for, bool wait);
  // False: a writer was in the way; `report` is untouched.
  bool ReadReport(LoadReport& report) const;
  // Forgets the report and its epoch: the backend is gone, or became another.
  void ForgetReport();
  uint64_t sent_since(const LoadReport& report) const {
    const uint64_t total = sent_total();
    return total > report.sent_mark ? total - report.sent_mark : 0;
  }

  // --- may it be used ---
  // `since` starts anew only when the health changes.
  void SetHealth(Health health, MonoTime now);
  Health health() const { return static_cast<Health>(health_.load(std::memory_order_relaxed) & 3); }
  MonoTime health_since() const { return health_.load(std::memory_order_relaxed) >> 2; }

  // Its load stream broke and no check has answered yet: use others first.
  std::atomic<bool> suspect{false};
  std::atomic<bool> drained{false};            // By an operator.
  std::atomic<bool> check_wanted{false};       // A worker saw a fault: check it now.
  std::atomic<MonoTime> ramp_from{kNever};     // Slow start; kNever: none.

  // It said that it is busy: left out until then, or until a report made after
  // `now` shows room. `retry_after` 0: none was given.
  void Rest(MonoTime now, MonoTime retry_after);
  MonoTime rest_until() const { return rest_until_.load(std::memory_order_relaxed); }
  // Busy answers do not speak against a backend, but a load report can speak for it.
  void EndRestIfRoom(const LoadReport& report);

  Breaker breaker;

  // --- counters for /metrics; control thread and workers ---
  std::array<std::atomic<uint64_t>, 4> reports_taken{};   // By rung, from kPush.
  std::atomic<uint64_t> reports_old{0};
  std::atomic<uint64_t> reports_invalid{0};
  std::atomic<uint64_t> busy_answers{0};
  std::array<std::atomic<uint64_t>, 4> checks{};          // By CheckResult.

 private:
  static constexpr size_t kReportWords = sizeof(LoadReport) / sizeof(uint64_t);

  uint64_t MarkAt(MonoTime made) const;
  bool Supersedes(const LoadReport& report, MonoTime fresh_for, Publish& why_not);
  LoadReport LoadWords() const;
  void StoreWords(const LoadReport& report);
  bool LockReport(bool wait);
  void UnlockReport();

  alignas(64) std::atomic<uint32_t> in_flight_{0};
  alignas(64) std::atomic<uint64_t> sent_{0};
  std::array<std::atomic<uint64_t>, kSentKept> sent_times_{};  // Lap 16 | microseconds 48.
  alignas(64) std::atomic<uint64_t> ttft_{0};              // float seconds | milliseconds; 0: none.
  std::atomic<int64_t> health_{0};                         // Since, in microseconds, << 2 | health.
  std::atomic<MonoTime> rest_until_{0};
  std::atomic<MonoTime> rest_from_{0};
  alignas(64) std::atomic<uint64_t> report_version_{0};    // Odd while written.
  std::array<std::atomic<uint64_t>, kReportWords> report_words_{};
  uint64_t previous_epoch_ = 0;                            // Guarded by the version being odd.
  std::atomic<uint32_t> worker_count_{0};                  // One more than the highest index added.
  std::array<WorkerCells, kMaxWorkers> workers_;
};

// The rung that a report counts as at `now`: its own while it is fresh, else kOwn.
// `stale` for pushed and piggybacked ones, 2.5 poll intervals for polled ones.
lb::Rung RungAt(const LoadReport& report, MonoTime now, MonoTime stale, MonoTime poll);
inline MonoTime PollInterval(const config::LoadReports& settings) {
  return settings.poll > absl::ZeroDuration() ? ToMicros(settings.poll) : kPollDefault;
}

// What the engine carried when it made the report: what it says, but at least what we
// had there ourselves by then, which covers a dialect that does not tell what runs,
// and an engine that always says 0 to be sent everything.
float TotalAt(const LoadReport& report, float in_flight, float sent_since);

// The share of its weight that a backend gets that came back at `ramp_from`: from a
// tenth, growing with time, to 1 after `window`.
float SlowStartAt(MonoTime ramp_from, MonoTime now, MonoTime window);

}  // namespace penstock
