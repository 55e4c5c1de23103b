// What a worker knows of one pool: the usable backends as candidates for a
// policy, and the life of each try from sent to ended.
//
// The figures that many threads write (in flight, reports, latency, breakers)
// live in Backend; a table copies them at most every 10 ms and adds its own
// worker's deltas, so that a pick touches no contended cache line.
//
// Threads: one table per worker and pool, on that worker's thread only.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "lb-policies/policy.h"
#include "proxy/backends/backend.h"
#include "proxy/base/random.h"
#include "proxy/base/time.h"

namespace penstock {

// How a try ended, as the backend's state sees it.
enum class Outcome : uint8_t {
  kOk,          // A whole answer, or an error of the client's making (4xx).
  kBusy,        // 429, 503 with Retry-After: it rests, nothing is held against it.
  kFault,       // No connection, reset, timeout, 5xx, bad bytes.
  kClientLeft,  // Says nothing about the backend.
};

class PoolTable;

// One try of one request at one backend; a member of the exchange.
// Destroying it while begun counts as kClientLeft.
class Attempt {
 public:
  Attempt() = default;
  ~Attempt();
  Attempt(const Attempt&) = delete;
  Attempt& operator=(const Attempt&) = delete;

  bool begun() const { return table_ != nullptr; }
  Backend* backend() const { return backend_; }

 private:
  friend class PoolTable;
  PoolTable* table_ = nullptr;
  Backend* backend_ = nullptr;
  MonoTime sent_ = 0;
  bool waiting_ = false;   // For its first token: linked in the backend's waiting list.
  uint8_t probe_ = 0;      // Not 0: took a half-open slot of the breaker,
  bool probe_told_ = false;   // and has given it back as a success.
  bool fine_ = false;      // Its answer's head was no fault of the backend.
  Attempt* next_ = nullptr;
  Attempt* previous_ = nullptr;
};

class PoolTable {
 public:
  enum class Shortage : uint8_t {
    kNone,
    kUnhealthy,  // Nothing healthy and admitted by its breaker: 503.
    kBusy,       // The healthy ones rest or are full: wait in the queue.
  };
  struct View {
    std::span<const lb::Candidate> candidates;  // Valid until the next call of the table.
    Shortage shortage = Shortage::kNone;
    MonoTime retry_at = kNever;                 // When one may become usable; kNever: unknown.
    bool panic = false;                         // Too few are healthy: health is ignored.
  };

  static constexpr MonoTime kRefresh = 10 * kMillisecond;

  // `seed` feeds the jitter of breakers. REQUIRES: worker < kMaxWorkers.
  PoolTable(std::shared_ptr<const PoolState> pool, uint32_t worker, uint64_t seed = 0);
  ~PoolTable();  // REQUIRES: no attempt is begun.
  PoolTable(const PoolTable&) = delete;
  PoolTable& operator=(const PoolTable&) = delete;

  // Backends that may take a request now, without those in `tried`: healthy, not
  // drained, breaker closed or half-open with a free probe, not resting, below
  // max_requests. In panic neither health nor breaker counts, except that a backend
  // that refuses connections stays out, and one that an operator took out.
  // Suspects (their load stream has just broken) are left out while others are there.
  // With everything tried or out, the shortage is that of the ones not tried.
  View Usable(MonoTime now, std::span<const lb::BackendId> tried);

  // A try begins; nullptr if the breaker's last probe slot was just taken by
  // another worker (pick again). `streams`: the answer comes as events, so that its
  // first token can be told; only such tries count as waiting for one.
  // REQUIRES: `id` came from the last Usable().
  Backend* Begin(Attempt& attempt, lb::BackendId id, bool streams, MonoTime now);
  // The first data event with a token arrived. REQUIRES: begun with `streams`.
  void FirstToken(Attempt& attempt, MonoTime now);
  // True if something says that the backend may be gone: its last health check
  // failed, it is unhealthy, or its load stream fell silent after having spoken.
  static bool Suspect(const Backend& backend);
  // Ends the try; `retry_after` matters for kBusy (0: none was given).
  void End(Attempt& attempt, Outcome outcome, MonoTime now, MonoTime retry_after = 0);
  // The status code of an answer's head.
  void Answered(Attempt& attempt, unsigned status);
  // Its answer is the one for the client, from its head or first token on. A probe has
  // done its work by that: the rest may take minutes, and others wait for its place. If
  // the answer breaks off all the same, that opens the breaker again.
  void Promoted(Attempt& attempt, MonoTime now);
  // The endpoint-load-metrics field of an answer.
  void Report(Backend& backend, std::string_view field, MonoTime now);

  const PoolState& pool() const { return *pool_; }
  // Tries of this worker at this pool that have begun and not ended.
  uint32_t active() const { return active_; }

 private:
  enum class Fitness : uint8_t { kUsable, kSuspect, kResting, kFull, kOut };
  struct Row;

  void Refresh(MonoTime now);
  void RefreshRow(Row& row, MonoTime now) const;
  void TakeReportedTtft(Row& row, MonoTime now) const;
  void FillLatencies();
  bool InPanic(MonoTime now) const;
  Fitness FitnessOf(const Row& row, MonoTime now) const;
  lb::Candidate CandidateOf(const Row& row, MonoTime now) const;
  Row& RowOf(const Backend& backend);
  void StartWaiting(Attempt& attempt, Row& row);
  void StopWaiting(Attempt& attempt, Row& row);
  void OnFault(Attempt& attempt, Row& row, MonoTime now);
  void ProbeSucceeded(Attempt& attempt, Row& row, MonoTime now);

  const std::shared_ptr<const PoolState> pool_;
  const uint32_t worker_;
  const BreakerSettings breaker_;
  const MonoTime tau_;
  const MonoTime slow_start_;
  const MonoTime stale_;
  const MonoTime poll_;
  Random random_;
  uint32_t active_ = 0;
  MonoTime refreshed_ = -kRefresh;
  bool panic_ = false;
  std::vector<Row> rows_;
  std::vector<float> scratch_;              // Medians are taken here.
  std::vector<lb::Candidate> candidates_;
};

}  // namespace penstock
