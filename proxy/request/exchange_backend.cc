// A try at a backend: sending the request, what its connection says, its answer's head,
// its end.
#include <algorithm>
#include <array>
#include <charconv>
#include <utility>

#include <fmt/format.h>

#include "proxy/request/exchange.h"
#include "proxy/request/grpc.h"
#include "proxy/request/session.h"

namespace penstock {
namespace {

// A connection that a backend closed while our request was on its way: seen
// within a moment of sending on a reused connection, and nobody's fault.
constexpr MonoTime kStaleWindow = 100 * kMillisecond;
constexpr uint32_t kRefusedMax = 3;
// What is left of the client's deadline goes on less this, so that the backend gives
// up before we do.
constexpr MonoTime kDeadlineMargin = 10 * kMillisecond;

// Retry-After in seconds, whole or not; dates and nonsense are one second.
MonoTime ParseRetryAfter(std::string_view value) {
  double seconds = 0;
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), seconds);
  if (error != std::errc() || end != value.data() + value.size() || !(seconds >= 0)) return kSecond;
  return static_cast<MonoTime>(std::min(seconds, 3600.0) * kSecond);
}

}  // namespace

Try* Exchange::Live() {
  for (Try& one : tries_) {
    if (one.live()) return &one;
  }
  return nullptr;
}

Try* Exchange::Other(const Try& one) {
  Try& other = tries_[&one == tries_.data() ? 1 : 0];
  return other.live() ? &other : nullptr;
}

void Exchange::SendRequest(Try& one) {
  const MonoTime now = context_.loop.now();
  RequestHead head = head_;
  std::array<Header, 7 + Forwarding::kFieldsMax> extra;
  size_t count = 0;
  extra[count++] = {"x-request-id", request_id_, KnownHeader::kXRequestId};
  if (!pool_->authorization.empty()) {
    extra[count++] = {"authorization", pool_->authorization, KnownHeader::kAuthorization};
  }
  for (const Header& field : forwarding_.fields()) extra[count++] = field;
  if (!upgrade_.empty()) extra[count++] = {"upgrade", upgrade_, KnownHeader::kUpgrade};
  head.upgrade = !upgrade_.empty();
  for (Header& header : head_.headers) {
    if (header.id == KnownHeader::kExpect) header.dropped = true;
    if (inference_ && header.id == KnownHeader::kAcceptEncoding) header.dropped = true;
  }
  TimeText left, left_grpc;
  if (client_deadline_.time != kNever && !(client_deadline_.until_answer && events_wanted())) {
    const MonoTime time = start_ + client_deadline_.time - now - kDeadlineMargin;
    extra[count++] = {"x-request-timeout-ms", AsMillis(time, left)};
    if (client_deadline_.grpc) extra[count++] = {"grpc-timeout", AsGrpcTimeout(time, left_grpc)};
  }
  if (inference_) {
    extra[count++] = {"accept-encoding", "identity", KnownHeader::kAcceptEncoding};
    head.framing = Framing::kLength;
    head.content_length = body_.size();
  }
  if (grpc_) extra[count++] = {"te", "trailers", KnownHeader::kTe};
  head.expect_continue = false;
  one.stage = Try::Stage::kAwaiting;
  one.when = now;
  if (first_sent_ == 0) first_sent_ = now;
  if (body_whole_ > 0 && attempts_ == 1) {
    pool_->cells.overhead.Observe(context_.loop.ReadClock() - body_whole_);
  }
  one.call->WriteRequest(head, std::span(extra.data(), count));
  if (inference_) {
    one.call->WriteKept(body_);
  } else if (!body_.empty()) {
    one.call->WriteBody(body_);
    body_lost_ = body_lost_ || body_.size() > pool_->settings.retry.body_bytes;
  }
  body_held_ = grpc_;
  if (request_complete_ || head.framing == Framing::kNone) {
    one.call->WriteEnd({});
    return AwaitAnswer(one);
  }
  if (grpc_) {  // Both directions may be silent for long.
    due_.body = kNever;
    pace_.End();
    TakeBody();
    return AwaitAnswer(one);
  }
  due_.body = now + ToMicros(snapshot_->server().request_body_idle_timeout);
  TakeBody();
  Rearm();
}

void Exchange::OnTryFailed(Try& one, const ConnFailure& failure) {
  using Kind = ConnFailure::Kind;
  if (failure.kind == Kind::kNoSocket) {
    EndTry(one, Outcome::kClientLeft);
    if (Live() != nullptr) return EndHedge(HedgeResult::kFailed);
    return Fail(ReplyCode::kOverloaded, failure.message, {}, kSecond);
  }
  if (failure.kind == Kind::kNoStream) {  // Others may have room; else the queue is where to wait.
    EndTry(one, Outcome::kClientLeft);
    return Live() != nullptr ? EndHedge(HedgeResult::kFailed) : Enqueue();
  }
  const bool untouched = failure.kind == Kind::kRefused || failure.kind == Kind::kBusy;
  if (untouched && !failure.answer_begun) return OnRefused(one, failure);
  const ReplyCode code = failure.kind == Kind::kConnectTimeout ? ReplyCode::kConnectTimeout
                         : failure.kind == Kind::kTls          ? ReplyCode::kBackendTls
                         : failure.kind == Kind::kBadAnswer    ? ReplyCode::kBackendBadAnswer
                                                               : ReplyCode::kBackendReset;
  const bool connecting = failure.kind == Kind::kConnect || failure.kind == Kind::kConnectTimeout ||
                          failure.kind == Kind::kTls;
  if (failure.kind == Kind::kConnectTimeout) pool_->cells.AddTimeout(TimeoutKind::kConnect);
  const bool stale = failure.kind == Kind::kReset && failure.reused && !failure.answer_begun &&
                     !stale_retried_ && body_kept() && session_ != nullptr && Other(one) == nullptr &&
                     context_.loop.now() - one.when < kStaleWindow;
  if (stale) {
    stale_retried_ = fresh_ = true;
    EndTry(one, Outcome::kClientLeft);
    retry_reason_ = RetryReason::kReset;
    last_failure_ = {code, failure.message};
    return Dispatch();
  }
  RetryQuestion question;
  // Many engines send the head of an event stream before they do any work.
  question.answer_begun = failure.answer_begun && one.stage != Try::Stage::kHolding;
  question.connection_died = failure.kind != Kind::kBadAnswer || failure.shared;
  TryFailed(one, question, {code, failure.message},
            connecting ? RetryReason::kConnect : RetryReason::kReset, failure.shared);
}

// HTTP/2: the backend did nothing with the request. A few times that is how it leaves
// a connection; more often, it is a busy backend.
void Exchange::OnRefused(Try& one, const ConnFailure& failure) {
  const bool again = (body_kept() || body_held_) && session_ != nullptr && !answer_sent();
  last_failure_ = {ReplyCode::kBackendReset, failure.message};
  if (Other(one) != nullptr) {
    EndTry(one, failure.kind == ConnFailure::Kind::kBusy ? Outcome::kBusy : Outcome::kClientLeft);
    if (one.kind == TryKind::kHedge) EndHedge(HedgeResult::kFailed);
    return Rearm();
  }
  if (again && failure.kind == ConnFailure::Kind::kRefused && used_.refused < kRefusedMax) {
    ++used_.refused;
    EndTry(one, Outcome::kClientLeft);
    retry_reason_ = RetryReason::kRefused;
    return Dispatch();
  }
  if (session_ != nullptr && LeaveBusy(one, 0)) return;
  EndTry(one, Outcome::kBusy);
  Fail(ReplyCode::kQueueFull, failure.message, {}, kSecond);
}

void Exchange::OnTryWritable() {
  if (session_ != nullptr && !inference_ && (tunnel_ || !request_complete_)) TakeBody();
}

void Exchange::OnTryHead(Try& one, ResponseHead& head) {
  pool_->table.Answered(one.attempt, head.status);
  const Header* retry_after = nullptr;
  for (Header& header : head.headers) {
    if (header.id == KnownHeader::kEndpointLoadMetrics) {
      pool_->table.Report(*one.attempt.backend(), header.value, context_.loop.now());
      header.dropped = true;
    }
    if (header.id == KnownHeader::kXRequestId) header.dropped = true;
    if (header.id == KnownHeader::kRetryAfter) retry_after = &header;
  }
  if (grpc_) grpc_status_ = ReadGrpcStatus(head.headers);
  const bool busy = head.status == 429 || (head.status == 503 && retry_after != nullptr) ||
                    grpc_status_ == GrpcStatus::kResourceExhausted;
  body_held_ = body_held_ && grpc_status_.has_value();
  const MonoTime rest = retry_after == nullptr ? 0 : ParseRetryAfter(retry_after->value);
  if (busy || head.status >= 500) {
    const bool other = Other(one) != nullptr;  // Which may still do better.
    if (other || session_ == nullptr) {
      EndTry(one, busy ? Outcome::kBusy : Outcome::kFault, rest);
      if (!other) return Finish();
      if (one.kind == TryKind::kHedge) EndHedge(HedgeResult::kFailed);
      return Rearm();
    }
  }
  if (busy && LeaveBusy(one, rest)) return;
  one.busy = busy;
  one.rest = rest;
  const bool gateway_error = head.status == 502 || head.status == 503 || head.status == 504;
  if (gateway_error && !busy) {
    RetryQuestion question;
    question.answer_begun = true;
    Tries after = used_;
    ++after.faults;
    if (Judge(question, after) == RetryVerdict::kPaid) {
      used_.paid = true;
      last_failure_ = {ReplyCode::kBackendBadAnswer,
                       fmt::format("backend {} answered {}", one.backend_name, head.status)};
      EndTry(one, Outcome::kFault);
      retry_reason_ = RetryReason::kStatus;
      return BackOff();
    }
  }
  body_held_ = false;
  BeginAnswer(one, head);
}

// The try is over. What it held stays where it is, since it may be on its way out.
// `shared`: the fault is counted by another request that it ended too.
void Exchange::EndTry(Try& one, Outcome outcome, MonoTime retry_after, bool shared) {
  if (one.attempt.begun()) {
    if (outcome == Outcome::kFault) {
      ++used_.faults;
      if (tried_count_ < kTriedMax) tried_[tried_count_++] = one.attempt.backend()->id;
      if (shared) outcome = Outcome::kClientLeft;
    }
    if (outcome == Outcome::kOk) pool_->drain_rate.Ended(context_.loop.now());
    pool_->table.End(one.attempt, outcome, context_.loop.now(), retry_after);
    if (!pool_->queue.empty()) context_.ArmQueueTimer(snapshot_);
  }
  one.Leave();
  one.stage = Try::Stage::kNone;
}

void Exchange::EndTries(Outcome outcome) {
  for (Try& one : tries_) EndTry(one, outcome);
}

}  // namespace penstock
