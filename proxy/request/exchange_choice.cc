// Which backend: the candidates, the policy's choice and its record, the queue while
// all of them are busy.
#include <algorithm>
#include <optional>
#include <utility>

#include <fmt/format.h>

#include "proxy/base/check.h"
#include "proxy/request/exchange.h"

namespace penstock {

void Exchange::Dispatch(bool waited) {
  phase_ = Phase::kTrying;
  // First come, first served; one that has been somewhere came before those who wait.
  if (!waited && attempts_ == 0 && !pool_->queue.empty()) return Enqueue();
  while (true) {
    const PoolTable::View view = pool_->table.Usable(
        context_.loop.now(), std::span(tried_.data(), tried_count_));
    if (!view.candidates.empty()) {
      pool_->cells.AddDecision(view.panic ? LbOutcome::kPanic : LbOutcome::kPicked);
      const TryKind kind = attempts_ == 0 ? TryKind::kFirst : TryKind::kRetry;
      const std::optional<size_t> pick = Pick(view.candidates, kind);
      if (!pick) {
        return Fail(ReplyCode::kNoHealthyBackend,
                    fmt::format("the policy {} refused every backend of pool {}",
                                pool_->settings.load_balancing.algorithm, pool_->settings.name));
      }
      if (Begin(view.candidates[*pick].id, kind)) return;
      continue;  // A probe slot went to another worker; look again.
    }
    if (last_failure_.code != ReplyCode::kInternal && view.shortage != PoolTable::Shortage::kBusy) {
      return Fail(last_failure_.code, last_failure_.message);
    }
    if (view.shortage == PoolTable::Shortage::kBusy) return Enqueue();
    const MonoTime wait = view.retry_at == kNever ? kSecond : view.retry_at - context_.loop.now();
    return Fail(ReplyCode::kNoHealthyBackend,
                pool_->table.pool().Drained()
                    ? fmt::format("every backend of pool {} is drained", pool_->settings.name)
                    : fmt::format("pool {} has no healthy backend", pool_->settings.name),
                {}, wait);
  }
}

// The policy's choice, recorded; nullopt: it refuses all of them.
std::optional<size_t> Exchange::Pick(std::span<const lb::Candidate> candidates, TryKind kind) {
  if (context_.terms.size() < candidates.size()) context_.terms.resize(candidates.size());
  const std::span<lb::Terms> terms(context_.terms.data(), candidates.size());
  std::fill(terms.begin(), terms.end(), lb::Terms{});
  lb::RequestInfo info;
  info.random = context_.random.Next();
  info.model = model_;
  info.prompt_tokens = prompt_tokens_;
  const std::optional<size_t> pick = pool_->policy->Pick(info, candidates, terms);
  if (!pick) {
    pool_->cells.AddDecision(LbOutcome::kRefused);
    return std::nullopt;
  }
  ++attempts_;
  if (kind == TryKind::kRetry && retry_reason_) {
    pool_->cells.AddRetry(*std::exchange(retry_reason_, std::nullopt));
  }
  context_.decisions.Add({.request_id = request_id_,
                          .time = context_.loop.wall_now(),
                          .attempt = attempts_,
                          .kind = kind,
                          .candidates = candidates,
                          .terms = terms,
                          .chosen = *pick},
                         pool_->table.pool(), pool_->decision_names);
  return pick;
}

// False: the backend's breaker gave its last place to another.
bool Exchange::Begin(lb::BackendId id, TryKind kind) {
  Try& one = tries_[tries_[0].live() ? 1 : 0];
  Backend* const backend = pool_->table.Begin(one.attempt, id, events_wanted(), context_.loop.now());
  if (backend == nullptr) return false;
  one.Begin(kind, backend->name, fresh_);
  one.unwell = backend->state.health() >= Health::kUnhealthy;
  backend_name_ = backend->name;
  if (queued_since_ > 0) {
    pool_->cells.queue_wait.Observe(context_.loop.now() - std::exchange(queued_since_, 0));
  }
  ConnPool* connections = nullptr;
  for (const auto& candidate : pool_->table.pool().backends) {
    if (candidate.get() == backend) connections = &context_.Connections(candidate, *pool_);
  }
  CHECK(connections != nullptr);
  one.dialing = connections;
  one.call = connections->Acquire(one, pool_->connect_timeout, one.fresh, !upgrade_.empty());
  if (one.call == nullptr) {
    Rearm();
    return true;
  }
  one.dialing = nullptr;
  SendRequest(one);
  return true;
}

// One that has been let in before is let in again.
void Exchange::Enqueue() {
  const uint32_t waiting = pool_->table.pool().queued.fetch_add(1, std::memory_order_relaxed);
  if (waiting >= pool_->settings.queue.max && !has_waited_) {
    pool_->table.pool().queued.fetch_sub(1, std::memory_order_relaxed);
    return Fail(ReplyCode::kQueueFull,
                fmt::format("every backend of pool {} is busy and {} requests wait already",
                            pool_->settings.name, waiting),
                {}, pool_->drain_rate.TimeFor(pool_->queue.size()));
  }
  has_waited_ = true;
  phase_ = Phase::kQueued;
  if (queued_since_ == 0) queued_since_ = context_.loop.now();
  pool_->cells.queued.Add(+1);
  queue_place_ = pool_->queue.insert(pool_->queue.end(), this);
  due_.queue = start_ + pool_->queue_wait;
  Rearm();
  context_.ArmQueueTimer(snapshot_);
}

void Exchange::LeaveQueue() {
  if (phase_ != Phase::kQueued) return;
  pool_->queue.erase(queue_place_);
  pool_->table.pool().queued.fetch_sub(1, std::memory_order_relaxed);
  pool_->cells.queued.Add(-1);
}

void Exchange::TryAgain() {
  LeaveQueue();
  Dispatch(true);
}

}  // namespace penstock
