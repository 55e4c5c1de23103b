// What the sessions and exchanges of one worker share: its loop's services, its
// view of the fleet under the policy file of the moment, its connections to
// backends, its records. Everything here belongs to the worker's thread, except
// ProcessTotals, which the limits of the whole process need.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <list>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "config/config.h"
#include "lb-policies/policy.h"
#include "proxy/backends/conn_pool.h"
#include "proxy/backends/pool_table.h"
#include "proxy/backends/worker_metrics.h"
#include "proxy/base/random.h"
#include "proxy/cache/result_cache.h"
#include "proxy/net/loop.h"
#include "proxy/net/turn.h"
#include "proxy/request/access_log.h"
#include "proxy/request/decision_ring.h"
#include "proxy/request/forwarding.h"
#include "proxy/request/overload.h"
#include "proxy/request/peek.h"
#include "proxy/request/recent_times.h"
#include "proxy/request/retry.h"
#include "proxy/request/route.h"

namespace penstock {

class Exchange;

struct ProcessTotals {
  std::atomic<uint64_t> buffered_bytes{0};
  std::atomic<uint32_t> connections{0};
  std::atomic<uint32_t> requests{0};
  std::atomic<uint32_t> connections_max{UINT32_MAX};  // As many as there are descriptors for.
  std::atomic<Pressure> pressure{Pressure::kNone};    // Set by the control thread, as is
  std::atomic<float> idle_share{1};                   // what is left of keep_alive.
};

// Requests that wait because every healthy backend is busy: first come, first
// served, each with its own deadline.
using WaitQueue = std::list<Exchange*>;

// How fast a pool finishes requests, as one worker sees it: what an honest
// Retry-After is made of.
class DrainRate {
 public:
  void Ended(MonoTime now) {
    if (last_ > 0) gap_ += (static_cast<double>(now - last_) - gap_) / 16;
    last_ = now;
  }
  // When `waiting` requests will have been served; one second without data.
  MonoTime TimeFor(size_t waiting) const {
    if (last_ == 0 || gap_ <= 0) return kSecond;
    return std::clamp(static_cast<MonoTime>(gap_ * static_cast<double>(waiting + 1)), kSecond,
                      60 * kSecond);
  }

 private:
  MonoTime last_ = 0;
  double gap_ = 0;               // Microseconds between two ends, smoothed over about 16.
};

// One worker's view of one pool, as one policy file describes it.
struct PoolContext {
  PoolContext(std::shared_ptr<const PoolState> state, uint32_t worker, uint64_t seed,
              WorkerMetrics& metrics, std::unique_ptr<lb::Policy> policy_in,
              std::shared_ptr<ResultCache> cache_in, uint32_t index_in);

  const config::Pool& settings;
  const uint32_t index;          // In Config::pools.
  PoolCells& cells;              // This worker's counts.
  PoolTable table;
  uint32_t decision_names = 0;   // Of the ring's.
  const std::unique_ptr<lb::Policy> policy;
  const std::shared_ptr<ResultCache> cache;  // May be null.
  bool cache_only_deterministic = true;
  RetryBudget budget;
  DrainRate drain_rate;
  WaitQueue queue;               // This worker's; PoolState::queued counts those of all.
  // Settings in the loop's unit.
  const MonoTime connect_timeout, first_token_timeout, response_timeout, idle_timeout, queue_wait,
      tunnel_timeout;
  const ConnPoolLimits connections;
  const MonoTime total_timeout, sse_keep_alive, per_try_timeout;  // 0: none.
  // From the first try to the first token, or to the head of an answer that comes whole;
  // filled where hedges are on.
  RecentTimes first_tokens, whole_answers;
  const std::string authorization;  // AuthMode::kReplace: the field's value.
};

// A worker's view of one policy file. Exchanges keep the one they started under.
struct Snapshot {
  Snapshot(std::shared_ptr<const Fleet> fleet_in)
      : fleet(std::move(fleet_in)), routes(*fleet->config), forwarding(server().forwarding) {}
  const std::shared_ptr<const Fleet> fleet;
  const RouteTable routes;
  const ForwardingRules forwarding;
  std::vector<std::unique_ptr<PoolContext>> pools;
  const config::Server& server() const { return fleet->config->server; }
};

struct WorkerContext {
  WorkerContext(Loop& loop_in, uint32_t index_in, uint64_t seed, ProcessTotals& totals_in,
                WorkerMetrics& metrics_in, std::shared_ptr<AccessLog> access_log_in,
                uint32_t decisions);
  ~WorkerContext();

  // Connections to `backend`, as `pool` wants them; made on first use, dropped when no
  // fleet names it.
  ConnPool& Connections(const std::shared_ptr<Backend>& backend, const PoolContext& pool);
  // All but those in use, which a later look drops.
  void DropConnectionsOutside(const Fleet& fleet);
  // That later look, for the snapshot in force; costs nothing where none may be left.
  void DropStrays();

  // Exchanges are reused, so that a request allocates nothing after warm-up.
  std::unique_ptr<Exchange> TakeExchange();
  // Gives one back when the turn ends.
  void Recycle(std::unique_ptr<Exchange> exchange);

  Pressure pressure() const { return totals.pressure.load(std::memory_order_relaxed); }
  // Client connections close after the answer that they are in.
  bool closing() const { return draining || pressure() >= Pressure::kClose; }

  // Lets waiting requests try again; called when room may have appeared.
  void PumpQueue(PoolContext& pool);
  // Looks at the queues of `waiting` every few milliseconds while any is not empty.
  void ArmQueueTimer(const std::shared_ptr<Snapshot>& waiting);

  Loop& loop;
  const uint32_t index;
  ProcessTotals& totals;
  WorkerMetrics& metrics;
  PoolCells& no_pool;            // Counts of requests that met no pool.
  std::shared_ptr<AccessLog> access_log;  // Null: off.
  Random random;
  Turn turn;
  Peeker peeker;
  DecisionRing decisions;
  std::vector<lb::Terms> terms;  // Scratch of a pick.
  std::string canonical, tenant; // Scratch of a cache key.
  std::shared_ptr<Snapshot> snapshot;
  bool draining = false;
  double shed_chance = 0;        // Share of new requests to refuse, because turns are late.
  // Exchanges whose client has left while others still follow their answer.
  std::vector<std::unique_ptr<Exchange>> orphans;

 private:
  void OnQueueTimer();

  absl::flat_hash_map<lb::BackendId, std::unique_ptr<ConnPool>> connections_;
  bool strays_ = false;          // Some of these may be to backends that no file names.
  std::vector<std::unique_ptr<Exchange>> spare_;
  std::vector<std::weak_ptr<Snapshot>> queued_snapshots_;
  TimerQueue::Timer queue_timer_;
};

}  // namespace penstock
