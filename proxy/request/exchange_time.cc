// What may last how long: the body, the queue, the wait for an answer, its pauses,
// a client that does not read.
#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "proxy/request/exchange.h"
#include "proxy/request/session.h"

namespace penstock {
namespace {

// How often a request that waits for its answer looks whether its backend lives.
constexpr MonoTime kLookInterval = 500 * kMillisecond;

}  // namespace

void Exchange::OnDeadline(void* self) {
  auto& exchange = *static_cast<Exchange*>(self);
  Turn::Scope scope(exchange.context_.turn);
  exchange.OnTimeout();
}

void Exchange::OnTimeout() {
  switch (phase_) {
    case Phase::kBody: return BodyStopped();
    case Phase::kQueued:
      pool_->cells.AddTimeout(TimeoutKind::kQueue);
      return Fail(ReplyCode::kQueueFull,
                  fmt::format("every backend of pool {} stayed busy for {}", pool_->settings.name,
                              absl::FormatDuration(pool_->settings.queue.wait)),
                  {}, pool_->drain_rate.TimeFor(pool_->queue.size()));
    case Phase::kAwaiting: return CheckAwaiting();
    case Phase::kRelaying:
      if (answer_paused_ && session_ != nullptr) return CheckClient();
      if (tunnel_) return OnTunnelIdle();
      if (events_ && inference_ && !first_token_seen_) {
        pool_->cells.AddTimeout(TimeoutKind::kFirstToken);
        EndAttempt(Outcome::kFault);
        return Fail(ReplyCode::kFirstTokenTimeout,
                    fmt::format("backend {} sent no token within {}", backend_name_,
                                absl::FormatDuration(pool_->settings.timeouts.first_token)));
      }
      pool_->cells.AddTimeout(TimeoutKind::kIdle);
      EndAttempt(Outcome::kFault);
      return Fail(ReplyCode::kIdleTimeout,
                  fmt::format("backend {} sent nothing more of its answer for {}", backend_name_,
                              absl::FormatDuration(pool_->settings.timeouts.idle)));
    case Phase::kFollowing:
      if (session_ != nullptr) CheckClient();
      return;
    default: return;
  }
}

void Exchange::BodyStopped() {
  (pool_ == nullptr ? context_.no_pool : pool_->cells).AddTimeout(TimeoutKind::kRequestBody);
  Fail(ReplyCode::kRequestTimeout, "the request's body stopped arriving");
}

// A client that takes nothing of its answer: no fault of the backend.
void Exchange::CheckClient() {
  const size_t unsent = session_->unsent(id_);
  if (std::exchange(unsent_, unsent) != unsent) {
    return deadline_.Set(context_.loop.now() + quiet_limit());
  }
  pool_->cells.AddFlag(Flag::kDC);
  EndAttempt(Outcome::kClientLeft);
  Fail(ReplyCode::kRequestTimeout, "the client stopped reading its answer");
}

void Exchange::AwaitAnswer() {
  const bool events_wanted = inference_ && stream_;
  limit_ = sent_ + (events_wanted ? pool_->first_token_timeout : pool_->response_timeout);
  deadline_.Set(std::min(limit_, context_.loop.now() + kLookInterval));
}

// While an answer is awaited: is the backend still there?
void Exchange::CheckAwaiting() {
  const MonoTime now = context_.loop.now();
  if (!request_complete_ && !grpc_) {  // A body that streams through: who does not move?
    if (!conn_->above_mark()) return BodyStopped();
    limit_ = now;
  }
  const Backend& backend = *attempt_.backend();
  const bool late = now >= limit_;
  if (!late && !(body_kept() && backend.state.health() >= Health::kUnhealthy)) {
    return deadline_.Set(std::min(limit_, now + kLookInterval));
  }
  const bool events_wanted = inference_ && stream_;
  if (late) pool_->cells.AddTimeout(events_wanted ? TimeoutKind::kFirstToken : TimeoutKind::kResponse);
  const bool suspect = PoolTable::Suspect(backend);
  Failure failure{events_wanted ? ReplyCode::kFirstTokenTimeout : ReplyCode::kResponseTimeout,
                  late ? fmt::format("backend {} sent no answer within {}", backend_name_,
                                     absl::FormatDuration(absl::Microseconds(limit_ - sent_)))
                       : fmt::format("backend {} became unhealthy before it answered", backend_name_)};
  EndAttempt(Outcome::kFault);
  LeaveConnection();
  RetryQuestion question;
  question.answer_begun = held_head_.held;
  question.backend_suspect = suspect || !late;
  if (MoveOn(question, failure, RetryReason::kTimeout)) return;
  Fail(failure.code, failure.message);
}

}  // namespace penstock
