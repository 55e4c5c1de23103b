// What may last how long: the whole of it, the body, the queue, the wait for an answer,
// its pauses, a client that does not read.
#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "proxy/request/exchange.h"
#include "proxy/request/session.h"

namespace penstock {
namespace {

// How often a request that waits for its answer looks whether its backend lives, or what
// the one that it follows has said.
constexpr MonoTime kLookInterval = 500 * kMillisecond;

}  // namespace

void Exchange::OnDeadline(void* self) {
  auto& exchange = *static_cast<Exchange*>(self);
  Turn::Scope scope(exchange.context_.turn);
  exchange.OnTimeout();
}

// Sets the deadline to the earliest moment at which there is something to do.
void Exchange::Rearm() {
  MonoTime next = due_.give_up;
  switch (phase_) {
    case Phase::kBody: next = std::min(next, BodyDue()); break;
    case Phase::kQueued: next = std::min(next, due_.queue); break;
    case Phase::kTrying: next = std::min(next, NextOfTries(context_.loop.now())); break;
    case Phase::kRelaying: next = std::min({next, due_.idle, due_.comment}); break;
    // Whoever leads wakes it, unless this loop has no room for one more task.
    case Phase::kFollowing:
      next = std::min({next, due_.idle, due_.comment, context_.loop.now() + kLookInterval});
      break;
    case Phase::kBackOff: break;
    case Phase::kDone: return;
  }
  if (next == kNever) {
    deadline_.Clear();
  } else {
    deadline_.Set(next);
  }
}

MonoTime Exchange::BodyDue() const { return std::min(due_.body, pace_.due()); }

MonoTime Exchange::NextOfTries(MonoTime now) const {
  MonoTime next = std::min(due_.hedge, due_.comment);
  for (const Try& one : tries_) {
    if (!one.sent()) continue;
    next = std::min({next, one.limit, one.patience, now + kLookInterval});
    if (!request_complete_) next = std::min(next, BodyDue());
  }
  return next;
}

void Exchange::OnTimeout() {
  const MonoTime now = context_.loop.now();
  if (now >= due_.give_up) return GiveUp();
  if (session_ == nullptr) OnDeserted();  // Its last follower may have left unheard.
  switch (phase_) {
    case Phase::kBody:
      if (now >= BodyDue()) return BodyStopped();
      break;
    case Phase::kQueued:
      if (now >= due_.queue) return QueuedTooLong();
      break;
    case Phase::kTrying: return LookAtTries(now);
    case Phase::kRelaying:
      if (now >= due_.idle && answer_paused_ && session_ != nullptr) return CheckClient();
      if (now >= due_.idle) return tunnel_ ? OnTunnelIdle() : AnswerStopped();
      if (now >= due_.comment) KeepAlive(now);
      break;
    case Phase::kFollowing:
      if (now >= due_.idle && session_ != nullptr) return CheckClient();
      if (now >= due_.comment) KeepAlive(now);
      OnFollow();
      break;
    case Phase::kBackOff:
    case Phase::kDone: break;
  }
  Rearm();
}

// The client's deadline or the pool's total has passed, whatever goes on. It speaks
// against no backend: a short deadline would make faults of good ones.
void Exchange::GiveUp() {
  PoolCells& cells = pool_ == nullptr ? context_.no_pool : pool_->cells;
  if (due_.is_total) {
    cells.AddTimeout(TimeoutKind::kTotal);
    return Fail(ReplyCode::kTotalTimeout,
                fmt::format("the request took longer than {}",
                            absl::FormatDuration(pool_->settings.timeouts.total)));
  }
  cells.AddTimeout(TimeoutKind::kDeadline);
  const Stage stage = StageNow();
  cells.AddDeadline(stage);
  Fail(ReplyCode::kDeadlineExceeded,
       fmt::format("the {} that the client gave passed (stage: {})",
                   absl::FormatDuration(absl::Microseconds(client_deadline_.time)),
                   kStageNames[static_cast<size_t>(stage)]));
}

Stage Exchange::StageNow() {
  switch (phase_) {
    case Phase::kQueued: return Stage::kQueue;
    case Phase::kBackOff: return Stage::kBackOff;
    case Phase::kRelaying: return Stage::kStream;
    case Phase::kFollowing: return Stage::kShared;
    case Phase::kTrying: {
      const bool sent = std::any_of(tries_.begin(), tries_.end(), [](const Try& one) { return one.sent(); });
      return sent ? Stage::kAnswer : Stage::kConnect;
    }
    default: return Stage::kBody;
  }
}

void Exchange::BodyStopped() {
  (pool_ == nullptr ? context_.no_pool : pool_->cells).AddTimeout(TimeoutKind::kRequestBody);
  if (context_.loop.now() >= due_.body) {
    return Fail(ReplyCode::kRequestTimeout, "the request's body stopped arriving");
  }
  Fail(ReplyCode::kRequestTimeout,
       fmt::format("the request's body came at less than {} bytes a second (server.limits.request_body_rate)",
                   snapshot_->server().limits.request_body_rate));
}

void Exchange::QueuedTooLong() {
  pool_->cells.AddTimeout(TimeoutKind::kQueue);
  Fail(ReplyCode::kQueueFull,
       fmt::format("every backend of pool {} stayed busy for {}", pool_->settings.name,
                   absl::FormatDuration(pool_->settings.queue.wait)),
       {}, pool_->drain_rate.TimeFor(pool_->queue.size()));
}

void Exchange::AnswerStopped() {
  pool_->cells.AddTimeout(TimeoutKind::kIdle);
  Broken(ReplyCode::kIdleTimeout, fmt::format("backend {} sent nothing more of its answer for {}", backend_name_,
                                              absl::FormatDuration(pool_->settings.timeouts.idle)));
}

// A client that takes nothing of its answer: no fault of the backend.
void Exchange::CheckClient() {
  const size_t unsent = session_->unsent(id_);
  if (std::exchange(unsent_, unsent) != unsent) {
    due_.idle = context_.loop.now() + quiet_limit();
    return Rearm();
  }
  Fail(ReplyCode::kClientStalled, "the client stopped reading its answer");
}

// The whole request has been sent; with a limit for each try, the pool's timeout is that
// of all of them together.
void Exchange::AwaitAnswer(Try& one) {
  const MonoTime timeout = events_wanted() ? pool_->first_token_timeout : pool_->response_timeout;
  const MonoTime each = pool_->per_try_timeout;
  const MonoTime now = context_.loop.now();  // A body that streamed through took its time.
  one.limit = (each > 0 && inference_ ? first_sent_ : now) + timeout;
  if (each > 0 && body_kept()) one.patience = now + each;
  if (one.kind != TryKind::kHedge) ArmHedge(now);
  Rearm();
}

// While an answer is awaited: are the backends still there?
void Exchange::LookAtTries(MonoTime now) {
  for (Try& one : tries_) {
    if (one.sent() && LookAt(one, now)) return;
  }
  if (now >= due_.hedge) Hedge(now);
  if (now >= due_.comment) KeepAlive(now);
  Rearm();
}

// True: the try is over, and what follows from it has happened.
bool Exchange::LookAt(Try& one, MonoTime now) {
  bool late = now >= one.limit;
  if (!request_complete_ && now >= BodyDue()) {  // A body that streams through: who does not move?
    if (!pace_.held()) {
      BodyStopped();
      return true;
    }
    late = true;
  }
  const Backend& backend = *one.attempt.backend();
  const bool unwell = backend.state.health() >= Health::kUnhealthy;
  one.unwell &= unwell;  // Chosen in a panic; it may recover, and fall ill again.
  const bool gone = body_kept() && unwell && !one.unwell;
  bool slow = false;
  if (now >= one.patience) {
    one.patience = kNever;
    slow = !late && !gone && Other(one) == nullptr && MayReplace(one);
  }
  if (!late && !gone && !slow) return false;
  if (late) pool_->cells.AddTimeout(events_wanted() ? TimeoutKind::kFirstToken : TimeoutKind::kResponse);
  if (slow) pool_->cells.AddTimeout(TimeoutKind::kTry);
  RetryQuestion question;
  question.answer_begun = one.stage == Try::Stage::kHolding;
  question.backend_suspect = PoolTable::Suspect(backend) || gone;
  const char* const what = one.stage == Try::Stage::kHolding ? "token" : "answer";
  Failure failure{events_wanted() ? ReplyCode::kFirstTokenTimeout : ReplyCode::kResponseTimeout,
                  gone ? fmt::format("backend {} became unhealthy before it answered", one.backend_name)
                       : fmt::format("backend {} sent no {} within {}", one.backend_name, what,
                                     absl::FormatDuration(absl::Microseconds(
                                         (late && one.limit != kNever ? one.limit : now) - one.when)))};
  TryFailed(one, question, std::move(failure), RetryReason::kTimeout);
  return true;
}

}  // namespace penstock
