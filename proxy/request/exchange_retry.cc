// Another try: after one that failed (MoveOn, and LeaveBusy after one that was turned
// away), or beside one that takes longer than most (Hedge).
#include <algorithm>
#include <array>
#include <utility>

#include "proxy/request/exchange.h"

namespace penstock {

// It ended without an answer for the client. The other one goes on, if there is one;
// else it is elsewhere, or the error.
void Exchange::TryFailed(Try& one, RetryQuestion question, Failure failure, RetryReason reason,
                         bool shared) {
  EndTry(one, Outcome::kFault, 0, shared);
  if (one.kind == TryKind::kHedge) EndHedge(HedgeResult::kFailed);
  if (Live() != nullptr) {
    last_failure_ = std::move(failure);
    return Rearm();
  }
  due_.hedge = kNever;
  if (MoveOn(question, failure, reason)) return;
  Fail(failure.code, failure.message);
}

RetryVerdict Exchange::Judge(RetryQuestion question, const Tries& used) {
  question.answer_sent = answer_sent();
  question.body_kept = body_kept();
  const uint64_t refused = pool_->budget.refused();
  const RetryVerdict verdict = MayRetry(question, used, pool_->settings.retry, pool_->budget);
  NoteBudget(refused);
  return verdict;
}

void Exchange::NoteBudget(uint64_t refused_before) {
  if (pool_->budget.refused() == refused_before) return;
  pool_->cells.retry_budget_exhausted.Add();
  budget_spent_ = true;
}

// Sends the request elsewhere if the rules allow it.
bool Exchange::MoveOn(const RetryQuestion& question, Failure failure, RetryReason reason) {
  if (session_ == nullptr) return false;  // An orphan has no request to send again.
  const RetryVerdict verdict = Judge(question, used_);
  if (verdict == RetryVerdict::kNo) return false;
  retry_reason_ = reason;
  last_failure_ = std::move(failure);
  if (verdict == RetryVerdict::kFree) {
    used_.free_used = true;
    Dispatch();
  } else {
    used_.paid = true;
    BackOff();
  }
  return true;
}

// False: it may not move, and the client gets the backend's own answer.
bool Exchange::LeaveBusy(Try& one, MonoTime retry_after) {
  const uint64_t refused = pool_->budget.refused();
  const RetryVerdict verdict = MayLeaveBusy(answer_sent(), body_kept() || body_held_, used_, pool_->budget);
  NoteBudget(refused);
  if (verdict == RetryVerdict::kNo) return false;
  if (verdict == RetryVerdict::kPaid) used_.paid = true;
  ++used_.busy;
  EndTry(one, Outcome::kBusy, retry_after);
  retry_reason_ = RetryReason::kBusy;
  if (verdict == RetryVerdict::kPaid) {
    BackOff();
  } else {
    Dispatch();
  }
  return true;
}

// Whether a try that takes long, but not too long yet, can be given up for a better one:
// then a place of the budget is taken for it.
bool Exchange::MayReplace(const Try& one) {
  if (session_ == nullptr || answer_sent() || !body_kept()) return false;
  if (used_.faults >= pool_->settings.retry.attempts + (used_.free_used ? 1 : 0)) return false;
  std::array<lb::BackendId, kTriedMax + 1> out;
  std::copy_n(tried_.begin(), tried_count_, out.begin());
  out[tried_count_] = one.attempt.backend()->id;
  const auto view = pool_->table.Usable(context_.loop.now(), std::span(out.data(), tried_count_ + 1));
  if (view.candidates.empty()) return false;
  if (used_.paid) return true;
  const uint64_t refused = pool_->budget.refused();
  used_.paid = pool_->budget.TryBegin();
  NoteBudget(refused);
  return used_.paid;
}

void Exchange::BackOff() {
  phase_ = Phase::kBackOff;
  back_off_ = context_.loop.timers().After(BackOffTime(used_.back_offs++, context_.random), [this] {
    Turn::Scope scope(context_.turn);
    Dispatch();
  });
  Rearm();
}

// From when on the try that has just been sent takes longer than most.
void Exchange::ArmHedge(MonoTime now) {
  const config::Hedge& hedge = pool_->settings.hedge;
  if (!hedge.enabled || hedged_ || !inference_) return;
  RecentTimes& recent = stream_ ? pool_->first_tokens : pool_->whole_answers;
  const std::optional<MonoTime> most = recent.Quantile(hedge.percentile, now);
  if (most) due_.hedge = now + std::max(*most, ToMicros(hedge.min_delay));
}

// A second try, at a backend that has room: a fleet without any is not helped by it.
void Exchange::Hedge(MonoTime now) {
  due_.hedge = kNever;
  hedged_ = true;
  const Try* const first = Live();
  std::array<lb::BackendId, kTriedMax + 1> out;
  std::copy_n(tried_.begin(), tried_count_, out.begin());
  out[tried_count_] = first->attempt.backend()->id;
  const auto view = pool_->table.Usable(now, std::span(out.data(), tried_count_ + 1));
  if (view.candidates.empty() || view.panic || !pool_->queue.empty()) {
    return pool_->cells.AddHedge(HedgeResult::kNoBackend);
  }
  const uint64_t refused = pool_->budget.refused();
  hedge_paid_ = pool_->budget.TryBegin();
  if (!hedge_paid_) {
    if (pool_->budget.refused() != refused) pool_->cells.retry_budget_exhausted.Add();
    return pool_->cells.AddHedge(HedgeResult::kNoBudget);
  }
  pool_->cells.AddDecision(LbOutcome::kPicked);
  const std::optional<size_t> pick = Pick(view.candidates, TryKind::kHedge);
  if (pick && Begin(view.candidates[*pick].id, TryKind::kHedge)) return;
  EndHedge(HedgeResult::kNoBackend);
}

void Exchange::EndHedge(HedgeResult result) {
  if (!hedge_paid_) return;
  hedge_paid_ = false;
  pool_->budget.RetryEnded();
  pool_->cells.AddHedge(result);
}

}  // namespace penstock
