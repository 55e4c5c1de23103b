// Choosing a backend, sending the request, relaying the answer. A try that fails
// before anything of an answer has left for the client may go elsewhere: MoveOn.
#include <algorithm>
#include <array>
#include <charconv>
#include <utility>

#include <fmt/format.h>

#include "proxy/base/check.h"
#include "proxy/base/status.h"
#include "proxy/request/exchange.h"
#include "proxy/request/session.h"

namespace penstock {
namespace {

// A connection that a backend closed while our request was on its way: seen
// within a moment of sending on a reused connection, and nobody's fault.
constexpr MonoTime kStaleWindow = 100 * kMillisecond;
// How often a request that waits for its answer looks whether its backend lives.
constexpr MonoTime kLookInterval = 500 * kMillisecond;
constexpr uint32_t kBusyMax = 8;

// Retry-After in seconds, whole or not; dates and nonsense are one second.
MonoTime ParseRetryAfter(std::string_view value) {
  double seconds = 0;
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), seconds);
  if (error != std::errc() || end != value.data() + value.size() || !(seconds >= 0)) return kSecond;
  return static_cast<MonoTime>(std::min(seconds, 3600.0) * kSecond);
}

}  // namespace

void Exchange::Dispatch() {
  while (true) {
    const PoolTable::View view = pool_->table.Usable(
        context_.loop.now(), std::span(tried_.data(), tried_count_));
    if (!view.candidates.empty()) {
      pool_->cells.AddDecision(view.panic ? LbOutcome::kPanic : LbOutcome::kPicked);
      if (Choose(view.candidates)) return;
      continue;  // A probe slot went to another worker; look again.
    }
    if (last_failure_.code != ReplyCode::kInternal && view.shortage != PoolTable::Shortage::kBusy) {
      return Fail(last_failure_.code, last_failure_.message);
    }
    if (view.shortage == PoolTable::Shortage::kBusy) return Enqueue();
    const MonoTime wait = view.retry_at == kNever ? kSecond : view.retry_at - context_.loop.now();
    return Fail(ReplyCode::kNoHealthyBackend,
                fmt::format("pool {} has no healthy backend", pool_->settings.name), {}, wait);
  }
}

// False: look for candidates again. True: on its way, or ended.
bool Exchange::Choose(std::span<const lb::Candidate> candidates) {
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
    Fail(ReplyCode::kNoHealthyBackend,
         fmt::format("the policy {} refused every backend of pool {}",
                     pool_->settings.load_balancing.algorithm, pool_->settings.name));
    return true;
  }
  ++attempts_;
  const lb::BackendId id = candidates[*pick].id;
  context_.decisions.Add({.request_id = request_id_,
                          .pool = pool_->settings.name,
                          .algorithm = pool_->settings.load_balancing.algorithm,
                          .time = context_.loop.wall_now(),
                          .attempt = attempts_,
                          .candidates = candidates,
                          .terms = terms,
                          .chosen = *pick},
                         pool_->table.pool());
  Backend* const backend = pool_->table.Begin(attempt_, id, inference_ && stream_, context_.loop.now());
  if (backend == nullptr) return false;
  backend_name_ = backend->name;
  if (queued_since_ > 0) {
    pool_->cells.queue_wait.Observe(context_.loop.now() - std::exchange(queued_since_, 0));
  }
  ConnPool* connections = nullptr;
  for (const auto& candidate : pool_->table.pool().backends) {
    if (candidate.get() == backend) connections = &context_.Connections(candidate);
  }
  CHECK(connections != nullptr);
  phase_ = Phase::kConnecting;
  deadline_.Clear();
  dialing_ = connections;
  conn_ = connections->Acquire(*this, pool_->connect_timeout, fresh_);
  if (conn_ != nullptr) SendRequest();
  return true;
}

void Exchange::Enqueue() {
  if (pool_->queue.size() >= pool_->queue_max) {
    return Fail(ReplyCode::kQueueFull,
                fmt::format("every backend of pool {} is busy and {} requests wait already",
                            pool_->settings.name, pool_->queue.size()),
                {}, pool_->drain_rate.TimeFor(pool_->queue.size()));
  }
  phase_ = Phase::kQueued;
  if (queued_since_ == 0) queued_since_ = context_.loop.now();
  pool_->cells.queued.Add(+1);
  queue_place_ = pool_->queue.insert(pool_->queue.end(), this);
  deadline_.Set(start_ + pool_->queue_wait);
  context_.ArmQueueTimer(snapshot_);
}

void Exchange::LeaveQueue() {
  if (phase_ != Phase::kQueued) return;
  pool_->queue.erase(queue_place_);
  pool_->cells.queued.Add(-1);
}

void Exchange::TryAgain() {
  LeaveQueue();
  phase_ = Phase::kConnecting;
  deadline_.Clear();
  Dispatch();
}

void Exchange::OnConnReady(BackendCall& call) {
  conn_ = &call;
  SendRequest();
}

void Exchange::SendRequest() {
  dialing_ = nullptr;
  RequestHead head = head_;
  std::array<Header, 3> extra;
  size_t count = 0;
  extra[count++] = {"x-request-id", request_id_, KnownHeader::kXRequestId};
  if (!pool_->authorization.empty()) {
    extra[count++] = {"authorization", pool_->authorization, KnownHeader::kAuthorization};
  }
  for (Header& header : head_.headers) {
    if (header.id == KnownHeader::kExpect) header.dropped = true;
    if (inference_ && header.id == KnownHeader::kAcceptEncoding) header.dropped = true;
  }
  if (inference_) {
    extra[count++] = {"accept-encoding", "identity", KnownHeader::kAcceptEncoding};
    head.framing = Framing::kLength;
    head.content_length = body_.size();
  }
  head.expect_continue = false;
  sent_ = context_.loop.now();
  if (body_whole_ > 0 && attempts_ == 1) {
    pool_->cells.overhead.Observe(context_.loop.ReadClock() - body_whole_);
  }
  phase_ = Phase::kAwaiting;
  conn_->WriteRequest(head, std::span(extra.data(), count));
  if (!body_.empty()) conn_->WriteBody(body_);
  if (!inference_ && !body_.empty()) body_streamed_ = true;
  if (request_complete_ || head.framing == Framing::kNone) {
    conn_->WriteEnd({});
    AwaitAnswer();
  } else {
    deadline_.Set(sent_ + ToMicros(snapshot_->server().request_body_idle_timeout));
    session_->ResumeBody();
  }
}

void Exchange::AwaitAnswer() {
  const bool events_wanted = inference_ && stream_;
  limit_ = sent_ + (events_wanted ? pool_->first_token_timeout : pool_->response_timeout);
  deadline_.Set(std::min(limit_, context_.loop.now() + kLookInterval));
}

// While an answer is awaited: is the backend still there?
void Exchange::CheckAwaiting() {
  const MonoTime now = context_.loop.now();
  if (!request_complete_) {  // A body that streams through: who does not move?
    if (!conn_->above_mark()) return BodyStopped();
    limit_ = now;
  }
  const Backend& backend = *attempt_.backend();
  const bool late = now >= limit_;
  if (!late && !(body_kept() && backend.state.health() >= Health::kUnhealthy)) {
    return deadline_.Set(std::min(limit_, now + kLookInterval));
  }
  if (late) pool_->cells.AddTimeout(TimeoutKind::kFirstToken);
  const bool suspect = PoolTable::Suspect(backend);
  Failure failure{ReplyCode::kFirstTokenTimeout,
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

RetryVerdict Exchange::Judge(RetryQuestion question, const Tries& tries) {
  question.answer_sent = answer_sent();
  question.body_kept = body_kept();
  const uint64_t refused = pool_->budget.refused();
  const RetryVerdict verdict = MayRetry(question, tries, pool_->settings.retry, pool_->budget);
  if (pool_->budget.refused() != refused) pool_->cells.retry_budget_exhausted.Add();
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

void Exchange::EndAttempt(Outcome outcome, MonoTime retry_after) {
  if (!attempt_.begun()) return;
  if (outcome == Outcome::kFault) {
    ++tries_.faults;
    if (tried_count_ < kTriedMax) tried_[tried_count_++] = attempt_.backend()->id;
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

void Exchange::OnConnFailed(const ConnFailure& failure) {
  conn_ = nullptr;
  dialing_ = nullptr;
  using Kind = ConnFailure::Kind;
  if (failure.kind == Kind::kNoSocket) {
    EndAttempt(Outcome::kClientLeft);
    return Fail(ReplyCode::kOverloaded, failure.message, {}, kSecond);
  }
  const ReplyCode code = failure.kind == Kind::kConnectTimeout ? ReplyCode::kConnectTimeout
                         : failure.kind == Kind::kBadAnswer    ? ReplyCode::kBackendBadAnswer
                                                               : ReplyCode::kBackendReset;
  const bool connecting = failure.kind == Kind::kConnect || failure.kind == Kind::kConnectTimeout;
  if (connecting) {
    const bool late = failure.kind == Kind::kConnectTimeout;
    if (late) pool_->cells.AddTimeout(TimeoutKind::kConnect);
    attempt_.backend()->state.worker(context_.index).AddConnectFailure(
        late ? ConnectFailure::kTimeout : ConnectFailure::kRefused);
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
  EndAttempt(Outcome::kFault);
  RetryQuestion question;
  // Many engines send the head of an event stream before they do any work.
  question.answer_begun = failure.answer_begun && !held_head_.held;
  question.connection_died = failure.kind != Kind::kBadAnswer;
  const RetryReason reason = connecting ? RetryReason::kConnect : RetryReason::kReset;
  if (MoveOn(question, {code, failure.message}, reason)) return;
  Fail(code, failure.message);
}

void Exchange::OnConnWritable() {
  if (session_ != nullptr && !inference_ && !request_complete_) session_->ResumeBody();
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
  const bool busy = head.status == 429 || (head.status == 503 && retry_after != nullptr);
  if (busy && body_kept() && session_ != nullptr && tries_.busy < kBusyMax) {
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

void Exchange::BeginAnswer(ResponseHead& head) {
  phase_ = Phase::kRelaying;
  status_ = head.status;
  const Header* type = Find(head.headers, KnownHeader::kContentType);
  events_ = type != nullptr && type->value.starts_with("text/event-stream");
  DropHopByHop(head.headers);
  if (!events_) {
    deadline_.Set(context_.loop.now() + pool_->idle_timeout);
    return RelayHead(head);
  }
  // Held until the first whole event; the views die with this callback's message.
  phase_ = Phase::kAwaiting;
  held_head_.held = true;
  held_head_.status = head.status;
  held_head_.storage.clear();
  held_head_.headers.clear();
  size_t bytes = 0;
  for (const Header& header : head.headers) bytes += header.name.size() + header.value.size();
  held_head_.storage.reserve(bytes);  // So that the views below stay put.
  const auto keep = [&](std::string_view text) {
    const size_t at = held_head_.storage.size();
    held_head_.storage += text;
    return std::string_view(held_head_.storage).substr(at, text.size());
  };
  for (const Header& header : head.headers) {
    if (header.dropped) continue;
    const std::string_view name = keep(header.name);
    held_head_.headers.push_back({name, keep(header.value), header.id});
  }
}

void Exchange::RelayHead(const ResponseHead& head) {
  head_sent_ = true;
  if (flight_ != nullptr) {
    const Header* type = Find(head.headers, KnownHeader::kContentType);
    flight_->Begin(head.status, type == nullptr ? "" : type->value);
  }
  if (session_ == nullptr) return;
  std::array<Header, 12> extra;
  size_t count = 0;
  extra[count++] = {"x-request-id", request_id_, KnownHeader::kXRequestId};
  field_.clear();
  field_.reserve(256);
  AddCacheStatus(extra, count);
  if (session_->debug_headers() && attempts_ > 0) {
    extra[count++] = {"x-penstock-backend", backend_name_, KnownHeader::kXPenstockBackend};
    const size_t at = field_.size();
    fmt::format_to(std::back_inserter(field_), "{}; attempt={}",
                   pool_->settings.load_balancing.algorithm, attempts_);
    extra[count++] = {"x-penstock-decision", std::string_view(field_).substr(at),
                      KnownHeader::kXPenstockDecision};
  }
  session_->WriteHead(id_, head, std::span(extra.data(), count));
}

void Exchange::OnAnswerBody(std::string_view data) {
  if (events_) {
    RelayEvents(data);
  } else {
    deadline_.Set(context_.loop.now() + pool_->idle_timeout);
    RelayBytes(data);
  }
  if (session_ == nullptr && conn_ != nullptr && (flight_ == nullptr || !flight_->has_readers())) {
    // Nobody is left to read this answer.
    EndAttempt(Outcome::kClientLeft);
    LeaveConnection();
    Finish();
  }
}

// Relays whole events as they came; only the piece of an event that is not whole
// yet is kept back, so that an error event of ours can never land inside one.
void Exchange::RelayEvents(std::string_view data) {
  const SseScanner::Result scan = scanner_.Scan(data);
  if (scan.first_token) FirstToken();
  event_count_ += scan.events;
  if (scan.complete == 0) {
    held_event_.append(data);
    if (held_event_.size() > snapshot_->server().limits.event_bytes) {
      Broken(ReplyCode::kBackendBadAnswer,
             fmt::format("backend {} sent an event of more than {} bytes", backend_name_,
                         snapshot_->server().limits.event_bytes));
    }
    return;
  }
  if (held_head_.held) {
    held_head_.held = false;
    phase_ = Phase::kRelaying;
    ResponseHead head;
    head.status = held_head_.status;
    head.headers = held_head_.headers;
    head.framing = Framing::kChunked;
    RelayHead(head);
  }
  deadline_.Set(first_token_seen_ || !inference_ ? context_.loop.now() + pool_->idle_timeout : limit_);
  if (!held_event_.empty()) {
    held_event_.append(data.substr(0, scan.complete));
    if (session_ != nullptr) {
      // Referenced until the turn ends, so the bytes move to where they stay put.
      auto event = std::make_unique<std::string>(std::exchange(held_event_, {}));
      RelayBytes(*event);
      context_.turn.Bury(std::move(event));
    } else {
      RelayBytes(held_event_);
      held_event_.clear();
    }
  } else {
    RelayBytes(data.substr(0, scan.complete));
  }
  held_event_.append(data.substr(scan.complete));
}

void Exchange::RelayBytes(std::string_view data) {
  if (flight_ != nullptr) flight_->Append(data);
  if (session_ == nullptr) return;
  bytes_sent_ += data.size();
  session_->WriteBody(id_, data);
  if (session_->above_mark() && !answer_paused_ && conn_ != nullptr) {
    answer_paused_ = true;
    conn_->PauseAnswer();
  }
}

void Exchange::OnClientWritable() {
  if (phase_ == Phase::kFollowing) return OnFollow();
  if (answer_paused_ && conn_ != nullptr) {
    answer_paused_ = false;
    deadline_.Set(context_.loop.now() + pool_->idle_timeout);
    conn_->ResumeAnswer();
  }
}

void Exchange::FirstToken() {
  first_token_seen_ = true;
  first_token_at_ = context_.loop.now();
  if (attempt_.begun()) pool_->table.FirstToken(attempt_, first_token_at_);
}

void Exchange::OnAnswerEnd(std::span<Header> trailers) {
  conn_ = nullptr;  // It has gone back to its pool.
  if (phase_ == Phase::kDone) return;
  if (const Header* report = Find(trailers, KnownHeader::kEndpointLoadMetrics); report && attempt_.begun()) {
    pool_->table.Report(*attempt_.backend(), report->value, context_.loop.now());
  }
  if (held_head_.held || !held_event_.empty()) {
    // An answer that ends inside an event, or before its first, is passed on as it is.
    if (held_head_.held) {
      held_head_.held = false;
      ResponseHead head;
      head.status = held_head_.status;
      head.headers = held_head_.headers;
      head.framing = Framing::kChunked;
      RelayHead(head);
    }
    if (!held_event_.empty()) RelayBytes(held_event_);
  }
  if (first_token_at_ > 0 && event_count_ > 2) {  // The last one is [DONE].
    pool_->cells.tpot.Observe((context_.loop.now() - first_token_at_) / (event_count_ - 2));
  }
  EndAttempt(status_ >= 500 ? Outcome::kFault : Outcome::kOk);
  if (!request_complete_ && session_ != nullptr) session_->CloseAfterAnswer();
  CloseFlight(status_ == 200);
  if (session_ != nullptr) session_->WriteEnd(id_);
  Finish();
}

// The answer in progress cannot go on: error event or cut.
void Exchange::Broken(ReplyCode code, const std::string& message) {
  EndAttempt(Outcome::kFault);
  LeaveConnection();
  Fail(code, message);
}

}  // namespace penstock
