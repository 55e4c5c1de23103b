#include "proxy/request/worker_context.h"

#include <algorithm>
#include <utility>

#include "proxy/request/exchange.h"

namespace penstock {
namespace {

constexpr MonoTime kQueueTick = 5 * kMillisecond;
constexpr size_t kSpareExchanges = 1024;

std::string AuthorizationOf(const config::Auth& auth) {
  return auth.mode == config::AuthMode::kReplace ? "Bearer " + auth.key : "";
}

}  // namespace

PoolContext::PoolContext(std::shared_ptr<const PoolState> state, uint32_t worker, uint64_t seed,
                         WorkerMetrics& metrics, std::unique_ptr<lb::Policy> policy_in,
                         std::shared_ptr<ResultCache> cache_in, uint32_t index_in)
    : settings(state->settings),
      index(index_in),
      cells(metrics.Pool(state->settings.name)),
      table(state, worker, seed),
      policy(std::move(policy_in)),
      cache(std::move(cache_in)),
      budget(settings.retry),
      connect_timeout(ToMicros(settings.timeouts.connect)),
      first_token_timeout(ToMicros(settings.timeouts.first_token)),
      response_timeout(ToMicros(settings.timeouts.response)),
      idle_timeout(ToMicros(settings.timeouts.idle)),
      queue_wait(ToMicros(settings.queue.wait)),
      tunnel_timeout(ToMicros(settings.timeouts.tunnel)),
      connections(LimitsOf(settings.connections, worker, settings.tls.enabled)),
      total_timeout(ToMicros(settings.timeouts.total)),
      sse_keep_alive(ToMicros(settings.timeouts.sse_keep_alive)),
      per_try_timeout(ToMicros(settings.retry.per_try_timeout)),
      authorization(AuthorizationOf(settings.auth)) {}

WorkerContext::WorkerContext(Loop& loop_in, uint32_t index_in, uint64_t seed,
                             ProcessTotals& totals_in, WorkerMetrics& metrics_in,
                             std::shared_ptr<AccessLog> access_log_in, uint32_t decision_count)
    : loop(loop_in),
      index(index_in),
      totals(totals_in),
      metrics(metrics_in),
      no_pool(metrics_in.Pool("")),
      access_log(std::move(access_log_in)),
      random(seed),
      peeker(64),
      decisions(decision_count) {
  turn.Hold();
  loop.BeforeWait([this] { turn.WriteHeld(); });
}

WorkerContext::~WorkerContext() { loop.BeforeWait({}); }

ConnPool& WorkerContext::Connections(const std::shared_ptr<Backend>& backend,
                                     const PoolContext& pool) {
  std::unique_ptr<ConnPool>& connections = connections_[backend->id];
  if (connections == nullptr) {
    connections = std::make_unique<ConnPool>(backend, loop.dialer(), loop.deadlines(), turn,
                                             pool.connections);
    strays_ = true;  // A request that began under an older file may ask.
  } else if (connections->limits() != pool.connections) {
    connections->SetLimits(pool.connections);  // Another policy file.
  }
  return *connections;
}

void WorkerContext::DropConnectionsOutside(const Fleet& fleet) {
  Turn::Scope scope(turn);
  strays_ = false;
  for (auto it = connections_.begin(); it != connections_.end();) {
    const bool named = std::any_of(fleet.pools.begin(), fleet.pools.end(), [&](const auto& pool) {
      return std::any_of(pool->backends.begin(), pool->backends.end(),
                         [&](const auto& backend) { return backend->id == it->first; });
    });
    // Requests that still run there keep their pool until a later look.
    if (named || it->second->in_use()) {
      strays_ |= !named;
      ++it;
    } else {
      turn.Bury(std::move(it->second));
      connections_.erase(it++);
    }
  }
}

void WorkerContext::DropStrays() {
  if (strays_) DropConnectionsOutside(*snapshot->fleet);
}

std::unique_ptr<Exchange> WorkerContext::TakeExchange() {
  if (spare_.empty()) return std::make_unique<Exchange>(*this);
  std::unique_ptr<Exchange> exchange = std::move(spare_.back());
  spare_.pop_back();
  return exchange;
}

void WorkerContext::Recycle(std::unique_ptr<Exchange> exchange) {
  // What it gathered may still point into it, so it is cleared when the turn ends.
  turn.Defer(exchange.release(), [](void* object) {
    std::unique_ptr<Exchange> done(static_cast<Exchange*>(object));
    WorkerContext& context = done->context_;
    done->Clear();
    if (context.spare_.size() < kSpareExchanges) context.spare_.push_back(std::move(done));
  });
}

// Each in its turn. One that finds no room keeps its place, and those behind it may have
// more luck: it may have been where there is room already.
void WorkerContext::PumpQueue(PoolContext& pool) {
  constexpr size_t kBlockedMax = 16;
  auto& queue = pool.queue;
  size_t blocked = 0;
  for (size_t left = queue.size(); left > 0 && blocked < std::min(queue.size(), kBlockedMax); --left) {
    Exchange* const next = *std::next(queue.begin(), static_cast<ptrdiff_t>(blocked));
    next->TryAgain();
    if (queue.empty() || queue.back() != next) continue;
    queue.splice(std::next(queue.begin(), static_cast<ptrdiff_t>(blocked)), queue, std::prev(queue.end()));
    ++blocked;
  }
}

void WorkerContext::ArmQueueTimer(const std::shared_ptr<Snapshot>& waiting) {
  const bool known = std::any_of(queued_snapshots_.begin(), queued_snapshots_.end(),
                                 [&](const auto& old) { return old.lock() == waiting; });
  if (!known) queued_snapshots_.push_back(waiting);
  if (!queue_timer_.armed()) queue_timer_ = loop.timers().After(kQueueTick, [this] { OnQueueTimer(); });
}

void WorkerContext::OnQueueTimer() {
  Turn::Scope scope(turn);
  for (const auto& old : std::exchange(queued_snapshots_, {})) {
    const std::shared_ptr<Snapshot> held = old.lock();
    if (held == nullptr) continue;
    bool waiting = false;
    for (const auto& pool : held->pools) {
      PumpQueue(*pool);
      waiting |= !pool->queue.empty();
    }
    if (waiting) ArmQueueTimer(held);
  }
}

}  // namespace penstock
