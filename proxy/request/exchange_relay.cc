// The answer on its way to the client: its head, whole events as they came, all other
// bytes, its end. The try whose answer it is has been promoted.
#include <array>
#include <iterator>
#include <memory>
#include <utility>

#include <fmt/format.h>

#include "proxy/http/sse_clean.h"
#include "proxy/request/exchange.h"
#include "proxy/request/grpc.h"
#include "proxy/request/session.h"

namespace penstock {
namespace {

// A stream that says so much without a token speaks a dialect that we do not know.
constexpr size_t kEventsHeldMax = 64 * 1024;
constexpr int64_t kEventCountHeldMax = 32;
constexpr std::string_view kComment = ": keep-alive\n\n";

}  // namespace

// The first answer wins. The other try is cancelled; that it lost says nothing about its
// backend, and its time is no measure of anything.
void Exchange::Promote(Try& one) {
  const MonoTime now = context_.loop.now();
  answer_ = &one;
  one.stage = Try::Stage::kRelaying;
  phase_ = Phase::kRelaying;
  backend_name_ = one.backend_name;
  // A gRPC status in the head says that it is over already; a first event that is an
  // error, how it ends.
  if (!grpc_status_ && !one.busy && !one.error_first) pool_->table.Promoted(one.attempt, now);
  if (Try* const other = Other(one)) EndTry(*other, Outcome::kClientLeft);
  EndHedge(one.kind == TryKind::kHedge ? HedgeResult::kWon : HedgeResult::kLost);
  due_.hedge = kNever;
  if (pool_->settings.hedge.enabled && inference_) {
    (stream_ ? pool_->first_tokens : pool_->whole_answers).Add(now - first_sent_, now);
  }
  if (client_deadline_.until_answer && !due_.is_total) {
    due_.give_up = pool_->total_timeout > 0 ? start_ + pool_->total_timeout : kNever;
    due_.is_total = true;
  }
  due_.idle = now + pool_->idle_timeout;
}

void Exchange::BeginAnswer(Try& one, ResponseHead& head) {
  const Header* type = Find(head.headers, KnownHeader::kContentType);
  const bool events = type != nullptr && type->value.starts_with("text/event-stream");
  DropHopByHop(head.headers);
  if (head.status == 101) return BeginTunnel(one, head);
  if (!events && bridged_) {
    EndTry(one, Outcome::kFault);
    return Fail(ReplyCode::kBackendBadAnswer,
                fmt::format("backend {} answered {} to a stream that had begun", one.backend_name, head.status));
  }
  if (!events) {
    Promote(one);
    status_ = head.status;
    until_close_ = head.framing == Framing::kUntilClose;
    BeginFlight(head);
    SendHead(head);
    return Rearm();
  }
  one.head.Keep(head);
  one.stage = Try::Stage::kHolding;
  // From here on the silence is the engine's work on the prompt: it is worth a comment,
  // which sends the head, when the client has heard nothing for long.
  const bool plain = Find(head.headers, KnownHeader::kContentEncoding) == nullptr;
  if (plain && shared_.flight != nullptr && head.status == 200) shared_.flight->Accept();
  if (inference_ && plain && head.status == 200 && pool_->sse_keep_alive > 0 && due_.comment == kNever) {
    due_.comment = std::max(start_ + pool_->sse_keep_alive, context_.loop.now());
  }
  Rearm();
}

void Exchange::SendHead(const ResponseHead& head) {
  head_sent_ = true;
  if (session_ == nullptr) return;
  std::array<Header, 12> extra;
  size_t count = 0;
  extra[count++] = {"x-request-id", request_id_, KnownHeader::kXRequestId};
  const std::string& via = snapshot_->forwarding.via;
  if (!via.empty()) extra[count++] = {"via", via, KnownHeader::kVia};
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

// A comment where the client has heard nothing for long, never inside an event: parts of
// events are held back. Behind the head of a stream without a token it leaves the way
// open for another backend, whose events the same head fits. It is not in the flight,
// and so never in the cache.
void Exchange::KeepAlive(MonoTime now) {
  due_.comment = session_ == nullptr ? kNever : now + pool_->sse_keep_alive;
  if (session_ == nullptr) return;
  if (!head_sent_ && phase_ == Phase::kFollowing) {
    if (!shared_.reader->flight()->accepted()) return;
    status_ = 200;
    events_ = bridged_ = true;
    SendFollowersHead("text/event-stream");
  } else if (!head_sent_) {
    Try* held = nullptr;
    for (Try& one : tries_) {
      if (one.stage == Try::Stage::kHolding) held = &one;
    }
    if (held == nullptr) {  // It failed since.
      due_.comment = kNever;
      return;
    }
    status_ = 200;
    events_ = bridged_ = true;
    SendHead(held->head.Release());
  }
  if (session_->unsent(id_) > 0 && !bridged_) return;
  bytes_sent_ += kComment.size();
  session_->WriteBody(id_, kComment);
  pool_->cells.sse_keep_alives.Add();
}

void Exchange::OnTryBody(Try& one, std::string_view data) {
  if (&one != answer_ || events_) {
    RelayEvents(one, data);
  } else {
    due_.idle = context_.loop.now() + quiet_limit();
    RelayBytes(data);
    Rearm();
  }
  const bool followed = shared_.flight != nullptr && shared_.flight->has_readers();
  if (session_ == nullptr && phase_ != Phase::kDone && !followed) EndUnread();
}

// Relays whole events as they came; only the piece of an event that is not whole
// yet is kept back, so that an error event of ours can never land inside one.
void Exchange::RelayEvents(Try& one, std::string_view data) {
  const SseScanner::Result scan = one.scanner.Scan(data);
  one.event_count += scan.events;
  if (one.scanner.partial_bytes() > snapshot_->server().limits.event_bytes) {
    return TryFailed(one, {.answer_begun = true},
                     {ReplyCode::kBackendBadAnswer,
                      fmt::format("backend {} sent an event of more than {} bytes", one.backend_name,
                                  snapshot_->server().limits.event_bytes)},
                     RetryReason::kReset);
  }
  one.error = one.error || scan.error;
  if (scan.first_token) FirstToken(&one);
  if (inference_ && scan.error && !one.scanner.saw_first_token()) {
    one.error_first = !scan.blames_client && pool_->settings.circuit_breaker.error_events;
  }
  if (&one != answer_) {
    one.Keep(data);
    one.unclean |= scan.unclean;
    const bool begun = scan.first_token || scan.done || scan.error || (!inference_ && !one.events.empty()) ||
                       one.events.size() > kEventsHeldMax || one.event_count > kEventCountHeldMax;
    if (begun) BeginEvents(one);
    return;
  }
  if (scan.complete > 0) {
    due_.idle = context_.loop.now() + pool_->idle_timeout;
    if (due_.comment != kNever) due_.comment = context_.loop.now() + pool_->sse_keep_alive;
    Rearm();
  }
  const bool unclean = scan.unclean && inference_;
  if (one.partial.empty() && !unclean) {
    RelayBytes(data.substr(0, scan.complete));
  } else if (scan.complete > 0) {
    // Referenced until the turn ends, so the bytes move to where they stay put.
    auto event = std::make_unique<std::string>(std::exchange(one.partial, {}));
    event->append(data.substr(0, scan.complete));
    if (unclean) *event = CleanEvents(*event);
    RelayBytes(*event);
    context_.turn.Bury(std::move(event));
  }
  one.partial.append(data.substr(scan.complete));
}

// A held stream becomes the answer: its head, unless a comment sent one, and its events.
void Exchange::BeginEvents(Try& one) {
  Promote(one);
  const ResponseHead head = one.head.Release();
  status_ = head.status;
  events_ = true;
  until_close_ = head.framing == Framing::kUntilClose;
  BeginFlight(head);
  if (!head_sent_) SendHead(head);
  bridged_ = false;
  if (due_.comment != kNever) due_.comment = context_.loop.now() + pool_->sse_keep_alive;
  if (one.unclean && inference_) one.events = CleanEvents(one.events);
  RelayBytes(one.events);
  Rearm();
}

void Exchange::RelayBytes(std::string_view data) {
  if (data.empty()) return;
  if (shared_.flight != nullptr) shared_.flight->Append(data);
  if (session_ == nullptr) return;
  bytes_sent_ += data.size();
  session_->WriteBody(id_, data);
  if (answer_ != nullptr && answer_->call != nullptr && !answer_paused_ && session_->above_mark(id_)) {
    answer_paused_ = true;
    unsent_ = session_->unsent(id_);
    due_.idle = context_.loop.now() + quiet_limit();
    Rearm();
    answer_->call->PauseAnswer();
  }
}

void Exchange::OnClientWritable() {
  if (phase_ == Phase::kFollowing) return OnFollow();
  if (answer_paused_ && answer_ != nullptr && answer_->call != nullptr) {
    answer_paused_ = false;
    due_.idle = context_.loop.now() + quiet_limit();
    Rearm();
    answer_->call->ResumeAnswer();
  }
}

// `one`: null where the answer is another request's.
void Exchange::FirstToken(Try* one) {
  first_token_at_ = context_.loop.now();
  if (one != nullptr && one->attempt.begun()) pool_->table.FirstToken(one->attempt, first_token_at_);
}

// What a whole answer says about its backend.
Outcome Exchange::HowItEnded(const Try& one, std::span<const Header> trailers) {
  if (one.busy) return Outcome::kBusy;
  if (status_ >= 500) return Outcome::kFault;
  if (one.error_first) return Outcome::kFault;
  if (!grpc_ || status_ != 200) return Outcome::kOk;
  if (!grpc_status_) grpc_status_ = ReadGrpcStatus(trailers);
  return OutcomeOf(grpc_status_);
}

void Exchange::OnTryEnd(Try& one, std::span<Header> trailers) {
  if (phase_ == Phase::kDone) return;
  DropFromTrailers(trailers);
  for (Header& trailer : trailers) {
    if (trailer.id != KnownHeader::kEndpointLoadMetrics) continue;
    if (one.attempt.begun()) pool_->table.Report(*one.attempt.backend(), trailer.value, context_.loop.now());
    trailer.dropped = true;
  }
  // An answer that ends inside an event, or before its first token, is passed on as it is.
  if (&one != answer_) BeginEvents(one);
  RelayBytes(one.partial);
  if (first_token_at_ > 0 && one.event_count > 2) {  // The last one is [DONE].
    pool_->cells.tpot.Observe((context_.loop.now() - first_token_at_) / (one.event_count - 2));
  }
  EndTry(one, HowItEnded(one, trailers), one.rest);
  if (!request_complete_ && session_ != nullptr) session_->CloseAfterAnswer(id_);
  CloseFlight(true, WorthKeeping(one));
  if (session_ != nullptr) session_->WriteEnd(id_, trailers);
  Finish();
}

// The answer in progress cannot go on: error event or cut.
void Exchange::Broken(ReplyCode code, const std::string& message) {
  EndTries(Outcome::kFault);
  Fail(code, message);
}

}  // namespace penstock
