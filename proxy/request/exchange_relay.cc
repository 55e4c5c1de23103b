// The answer on its way to the client: its head, whole events as they came, all other
// bytes, its end.
#include <array>
#include <iterator>
#include <memory>
#include <utility>

#include <fmt/format.h>

#include "proxy/request/exchange.h"
#include "proxy/request/grpc.h"
#include "proxy/request/session.h"

namespace penstock {

void Exchange::BeginAnswer(ResponseHead& head) {
  phase_ = Phase::kRelaying;
  status_ = head.status;
  const Header* type = Find(head.headers, KnownHeader::kContentType);
  events_ = type != nullptr && type->value.starts_with("text/event-stream");
  DropHopByHop(head.headers);
  if (head.status == 101) return BeginTunnel(head);
  if (!events_) {
    deadline_.Set(context_.loop.now() + pool_->idle_timeout);
    return RelayHead(head);
  }
  // Held until the first whole event; the views die with this callback's message.
  phase_ = Phase::kAwaiting;
  held_head_.Keep(head);
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

void Exchange::OnAnswerBody(std::string_view data) {
  if (events_) {
    RelayEvents(data);
  } else {
    deadline_.Set(context_.loop.now() + quiet_limit());
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
    phase_ = Phase::kRelaying;
    RelayHead(held_head_.Release());
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
  if (session_->above_mark(id_) && !answer_paused_ && conn_ != nullptr) {
    answer_paused_ = true;
    conn_->PauseAnswer();
  }
}

void Exchange::OnClientWritable() {
  if (phase_ == Phase::kFollowing) return OnFollow();
  if (answer_paused_ && conn_ != nullptr) {
    answer_paused_ = false;
    deadline_.Set(context_.loop.now() + quiet_limit());
    conn_->ResumeAnswer();
  }
}

void Exchange::FirstToken() {
  first_token_seen_ = true;
  first_token_at_ = context_.loop.now();
  if (attempt_.begun()) pool_->table.FirstToken(attempt_, first_token_at_);
}

// What a whole answer says about its backend.
Outcome Exchange::HowItEnded(std::span<const Header> trailers) {
  if (status_ >= 500) return Outcome::kFault;
  if (!grpc_ || status_ != 200) return Outcome::kOk;
  if (!grpc_status_) grpc_status_ = ReadGrpcStatus(trailers);
  return OutcomeOf(grpc_status_);
}

void Exchange::OnAnswerEnd(std::span<Header> trailers) {
  conn_ = nullptr;  // It has gone back to its pool.
  if (phase_ == Phase::kDone) return;
  DropFromTrailers(trailers);
  for (Header& trailer : trailers) {
    if (trailer.id != KnownHeader::kEndpointLoadMetrics) continue;
    if (attempt_.begun()) pool_->table.Report(*attempt_.backend(), trailer.value, context_.loop.now());
    trailer.dropped = true;
  }
  if (held_head_.held || !held_event_.empty()) {
    // An answer that ends inside an event, or before its first, is passed on as it is.
    if (held_head_.held) RelayHead(held_head_.Release());
    if (!held_event_.empty()) RelayBytes(held_event_);
  }
  if (first_token_at_ > 0 && event_count_ > 2) {  // The last one is [DONE].
    pool_->cells.tpot.Observe((context_.loop.now() - first_token_at_) / (event_count_ - 2));
  }
  EndAttempt(HowItEnded(trailers));
  if (!request_complete_ && session_ != nullptr) session_->CloseAfterAnswer(id_);
  CloseFlight(status_ == 200);
  if (session_ != nullptr) session_->WriteEnd(id_, trailers);
  Finish();
}

// The answer in progress cannot go on: error event or cut.
void Exchange::Broken(ReplyCode code, const std::string& message) {
  EndAttempt(Outcome::kFault);
  LeaveConnection();
  Fail(code, message);
}

}  // namespace penstock
