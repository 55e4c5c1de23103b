// A try at a backend: sending the request, what its connection and its answer's head
// say, and whether a try that failed may go elsewhere (MoveOn).
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
constexpr uint32_t kBusyMax = 8;
constexpr uint32_t kRefusedMax = 3;

// Retry-After in seconds, whole or not; dates and nonsense are one second.
MonoTime ParseRetryAfter(std::string_view value) {
  double seconds = 0;
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), seconds);
  if (error != std::errc() || end != value.data() + value.size() || !(seconds >= 0)) return kSecond;
  return static_cast<MonoTime>(std::min(seconds, 3600.0) * kSecond);
}

}  // namespace

void Exchange::OnConnReady(BackendCall& call) {
  conn_ = &call;
  SendRequest();
}

void Exchange::SendRequest() {
  dialing_ = nullptr;
  RequestHead head = head_;
  std::array<Header, 5 + Forwarding::kFieldsMax> extra;
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
  if (inference_) {
    extra[count++] = {"accept-encoding", "identity", KnownHeader::kAcceptEncoding};
    head.framing = Framing::kLength;
    head.content_length = body_.size();
  }
  if (grpc_) extra[count++] = {"te", "trailers", KnownHeader::kTe};
  head.expect_continue = false;
  sent_ = context_.loop.now();
  if (body_whole_ > 0 && attempts_ == 1) {
    pool_->cells.overhead.Observe(context_.loop.ReadClock() - body_whole_);
  }
  phase_ = Phase::kAwaiting;
  conn_->WriteRequest(head, std::span(extra.data(), count));
  if (inference_) {
    conn_->WriteKept(body_);
  } else if (!body_.empty()) {
    conn_->WriteBody(body_);
    body_streamed_ = true;
  }
  body_held_ = grpc_;
  if (request_complete_ || head.framing == Framing::kNone) {
    conn_->WriteEnd({});
    AwaitAnswer();
  } else if (grpc_) {  // Both directions may be silent for long.
    AwaitAnswer();
    session_->ResumeBody(id_);
  } else {
    deadline_.Set(sent_ + ToMicros(snapshot_->server().request_body_idle_timeout));
    session_->ResumeBody(id_);
  }
}

void Exchange::OnConnFailed(const ConnFailure& failure) {
  conn_ = nullptr;
  dialing_ = nullptr;
  using Kind = ConnFailure::Kind;
  if (failure.kind == Kind::kNoSocket) {
    EndAttempt(Outcome::kClientLeft);
    return Fail(ReplyCode::kOverloaded, failure.message, {}, kSecond);
  }
  if (failure.kind == Kind::kNoStream) {  // Others may have room; else the queue is where to wait.
    EndAttempt(Outcome::kClientLeft);
    return Enqueue();
  }
  const bool untouched = failure.kind == Kind::kRefused || failure.kind == Kind::kBusy;
  if (untouched && !failure.answer_begun) return OnRefused(failure);
  const ReplyCode code = failure.kind == Kind::kConnectTimeout ? ReplyCode::kConnectTimeout
                         : failure.kind == Kind::kTls          ? ReplyCode::kBackendTls
                         : failure.kind == Kind::kBadAnswer    ? ReplyCode::kBackendBadAnswer
                                                               : ReplyCode::kBackendReset;
  const bool connecting = failure.kind == Kind::kConnect || failure.kind == Kind::kConnectTimeout ||
                          failure.kind == Kind::kTls;
  if (connecting) {
    if (failure.kind == Kind::kConnectTimeout) pool_->cells.AddTimeout(TimeoutKind::kConnect);
  }
  const bool stale = failure.kind == Kind::kReset && failure.reused && !failure.answer_begun &&
                     !stale_retried_ && body_kept() && session_ != nullptr &&
                     context_.loop.now() - sent_ < kStaleWindow;
  if (stale) {
    stale_retried_ = fresh_ = true;
    EndAttempt(Outcome::kClientLeft);
    pool_->cells.AddRetry(RetryReason::kReset);
    last_failure_ = {code, failure.message};
    return Dispatch();
  }
  EndAttempt(Outcome::kFault, 0, failure.shared);
  RetryQuestion question;
  // Many engines send the head of an event stream before they do any work.
  question.answer_begun = failure.answer_begun && !held_head_.held;
  question.connection_died = failure.kind != Kind::kBadAnswer || failure.shared;
  const RetryReason reason = connecting ? RetryReason::kConnect : RetryReason::kReset;
  if (MoveOn(question, {code, failure.message}, reason)) return;
  Fail(code, failure.message);
}

// HTTP/2: the backend did nothing with the request. A few times that is how it leaves
// a connection; more often, it is a busy backend.
void Exchange::OnRefused(const ConnFailure& failure) {
  const bool again = (body_kept() || body_held_) && session_ != nullptr;
  last_failure_ = {ReplyCode::kBackendReset, failure.message};
  if (again && failure.kind == ConnFailure::Kind::kRefused && tries_.refused < kRefusedMax) {
    ++tries_.refused;
    EndAttempt(Outcome::kClientLeft);
    pool_->cells.AddRetry(RetryReason::kRefused);
    return Dispatch();
  }
  if (again && tries_.busy < kBusyMax) return OnBusy(0);
  EndAttempt(Outcome::kBusy);
  Fail(ReplyCode::kQueueFull, failure.message, {}, kSecond);
}

void Exchange::OnConnWritable() {
  if (session_ != nullptr && !inference_ && (tunnel_ || !request_complete_)) session_->ResumeBody(id_);
}

void Exchange::OnAnswerInterim(ResponseHead&) {}  // 100 is ours to give; others say nothing we need.

void Exchange::OnAnswerHead(ResponseHead& head) {
  Backend& backend = *attempt_.backend();
  pool_->table.Answered(attempt_, head.status);
  const Header* retry_after = nullptr;
  for (Header& header : head.headers) {
    if (header.id == KnownHeader::kEndpointLoadMetrics) {
      pool_->table.Report(backend, header.value, context_.loop.now());
      header.dropped = true;
    }
    if (header.id == KnownHeader::kXRequestId) header.dropped = true;
    if (header.id == KnownHeader::kRetryAfter) retry_after = &header;
  }
  if (grpc_) grpc_status_ = ReadGrpcStatus(head.headers);
  const bool busy = head.status == 429 || (head.status == 503 && retry_after != nullptr) ||
                    grpc_status_ == GrpcStatus::kResourceExhausted;
  const bool again = body_kept() || (body_held_ && grpc_status_);
  body_held_ = false;
  if (busy && again && session_ != nullptr && tries_.busy < kBusyMax) {
    return OnBusy(retry_after == nullptr ? 0 : ParseRetryAfter(retry_after->value));
  }
  if (session_ == nullptr && (busy || head.status >= 500)) {
    EndAttempt(busy ? Outcome::kBusy : Outcome::kFault);
    LeaveConnection();
    return Finish();
  }
  const bool gateway_error = head.status == 502 || head.status == 503 || head.status == 504;
  if (gateway_error && !busy && body_kept() && session_ != nullptr) {
    RetryQuestion question;
    question.answer_begun = true;
    Tries after = tries_;
    ++after.faults;
    const RetryVerdict verdict = Judge(question, after);
    if (verdict == RetryVerdict::kPaid) {
      tries_.paid = true;
      EndAttempt(Outcome::kFault);
      LeaveConnection();
      pool_->cells.AddRetry(RetryReason::kStatus);
      last_failure_ = {ReplyCode::kBackendBadAnswer,
                       fmt::format("backend {} answered {}", backend_name_, head.status)};
      return Dispatch();
    }
  }
  BeginAnswer(head);
}

void Exchange::OnBusy(MonoTime retry_after) {
  ++tries_.busy;
  EndAttempt(Outcome::kBusy, retry_after);
  LeaveConnection();
  pool_->cells.AddRetry(RetryReason::kBusy);
  Dispatch();
}

RetryVerdict Exchange::Judge(RetryQuestion question, const Tries& tries) {
  question.answer_sent = answer_sent();
  question.body_kept = body_kept();
  const uint64_t refused = pool_->budget.refused();
  const RetryVerdict verdict = MayRetry(question, tries, pool_->settings.retry, pool_->budget);
  if (pool_->budget.refused() != refused) {
    pool_->cells.retry_budget_exhausted.Add();
    budget_spent_ = true;
  }
  return verdict;
}

// Sends the request elsewhere if the rules allow it. The attempt has ended and
// the connection is left.
bool Exchange::MoveOn(const RetryQuestion& question, Failure failure, RetryReason reason) {
  if (session_ == nullptr) return false;  // An orphan has no request to send again.
  const RetryVerdict verdict = Judge(question, tries_);
  if (verdict == RetryVerdict::kNo) return false;
  if (verdict == RetryVerdict::kFree) tries_.free_used = true;
  if (verdict == RetryVerdict::kPaid) tries_.paid = true;
  pool_->cells.AddRetry(reason);
  last_failure_ = std::move(failure);
  held_head_.held = false;
  held_event_.clear();
  events_ = false;
  scanner_.Clear();
  Dispatch();
  return true;
}

// `shared`: the fault is counted by another request that it ended too.
void Exchange::EndAttempt(Outcome outcome, MonoTime retry_after, bool shared) {
  if (!attempt_.begun()) return;
  if (outcome == Outcome::kFault) {
    ++tries_.faults;
    if (tried_count_ < kTriedMax) tried_[tried_count_++] = attempt_.backend()->id;
    if (shared) outcome = Outcome::kClientLeft;  // Another request has told the backend's state.
  }
  if (outcome == Outcome::kOk) pool_->drain_rate.Ended(context_.loop.now());
  pool_->table.End(attempt_, outcome, context_.loop.now(), retry_after);
  if (!pool_->queue.empty()) context_.ArmQueueTimer(snapshot_);
}

void Exchange::LeaveConnection() {
  if (dialing_ != nullptr && conn_ == nullptr) dialing_->Cancel(*this);
  dialing_ = nullptr;
  if (conn_ != nullptr) std::exchange(conn_, nullptr)->Leave();
}

}  // namespace penstock
