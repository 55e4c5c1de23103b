// Results shared between requests: lookup before a backend is chosen, following
// an answer that another request leads, leading one that others follow.
#include <algorithm>
#include <array>
#include <utility>

#include <fmt/format.h>

#include "proxy/request/exchange.h"
#include "proxy/request/session.h"

namespace penstock {
namespace {

// How much of a shared answer is handed to a client at once.
constexpr size_t kFollowBytes = 128 * 1024;

// What backends know their clients by: who differs in one of these is another tenant.
constexpr std::array<std::string_view, 7> kCredentials = {
    "authorization", "api-key", "x-api-key", "x-goog-api-key", "cookie", "openai-organization", "openai-project"};

void AppendTenant(std::span<const Header> headers, std::string& out) {
  out.clear();
  for (const Header& header : headers) {
    const auto is = [&](std::string_view name) { return EqualsIgnoringCase(header.name, name); };
    const auto name = std::ranges::find_if(kCredentials, is);
    if (name != kCredentials.end()) out.append(*name).append(1, ':').append(header.value).append(1, '\n');
  }
}

}  // namespace

bool Exchange::UseCache() {
  if (pool_->cache == nullptr) return false;
  if (pool_->cache_only_deterministic && !deterministic_) {
    shared_.use = CacheUse::kBypass;
    shared_.detail = "not-deterministic";
    return false;
  }
  const uint64_t weights = pool_->table.pool().weights.load(std::memory_order_relaxed);
  if (weights == kWeightsDisagree) {
    shared_.use = CacheUse::kBypass;
    shared_.detail = "weights-disagree";
    return false;
  }
  context_.canonical.clear();
  context_.peeker.AppendCanonical(context_.canonical);
  AppendTenant(head_.headers, context_.tenant);
  CacheKeyParts key;
  key.tenant = context_.tenant;
  key.pool = pool_->settings.name;
  key.target = head_.target;
  key.weights = weights;
  key.canonical_body = context_.canonical;
  ResultCache::Ticket ticket = pool_->cache->Open(key, context_.loop.now());
  static constexpr CacheResult kResults[] = {CacheResult::kHit, CacheResult::kCoalesced,
                                             CacheResult::kMiss, CacheResult::kBypass};
  pool_->cells.AddCacheLookup(ticket.stale ? CacheResult::kStale
                                           : kResults[static_cast<size_t>(ticket.outcome)]);
  switch (ticket.outcome) {
    case ResultCache::Outcome::kBypass:
      shared_.use = CacheUse::kBypass;
      shared_.detail = "full";
      return false;
    case ResultCache::Outcome::kLead:
      shared_.use = CacheUse::kLead;
      shared_.detail = ticket.stale ? "stale" : "uri-miss";
      shared_.flight = std::move(ticket.flight);
      return false;
    case ResultCache::Outcome::kHit:
      shared_.use = CacheUse::kHit;
      shared_.age = ticket.age;
      shared_.ttl = ticket.ttl;
      break;
    case ResultCache::Outcome::kJoined: shared_.use = CacheUse::kJoined; break;
  }
  return Follow(std::move(ticket.flight));
}

// False: the flight took no more readers.
bool Exchange::Follow(std::shared_ptr<Flight> flight) {
  wake_ = std::make_shared<Exchange*>(this);
  WorkerContext& context = context_;
  shared_.reader = FlightReader::Join(std::move(flight), [&context, wake = wake_] {
    context.loop.Post([&context, wake] {
      Turn::Scope scope(context.turn);
      if (*wake != nullptr) (*wake)->OnFollow();
    });
  });
  if (shared_.reader == nullptr) {
    shared_.use = CacheUse::kBypass;
    shared_.detail = "full";
    return false;
  }
  phase_ = Phase::kFollowing;
  if (stream_ && pool_->sse_keep_alive > 0) due_.comment = start_ + pool_->sse_keep_alive;
  OnFollow();
  return true;
}

void Exchange::OnFollow() {
  // Stopped as it was: more of the answer does not make its client read.
  if (due_.idle != kNever && session_ != nullptr && session_->above_mark(id_)) return;
  due_.idle = kNever;
  while (phase_ == Phase::kFollowing && session_ != nullptr && !session_->above_mark(id_)) {
    FlightReader::Step step = shared_.reader->Read(kFollowBytes);
    if (step.promoted) return LeadFlight();
    if (step.state == Flight::State::kFailed && !answer_sent()) {
      // The answer broke off, but not for this client: it asks for itself.
      shared_.reader.reset();
      shared_.use = CacheUse::kBypass;
      shared_.detail = "shared-answer-failed";
      return Dispatch();
    }
    if (!answer_sent() && step.state != Flight::State::kWaiting && !BeginFollowing(step.state)) return;
    if (!step.chunks.empty() && due_.comment != kNever) {
      due_.comment = context_.loop.now() + pool_->sse_keep_alive;
    }
    for (const auto& chunk : step.chunks) {
      if (events_ && first_token_at_ == 0 && scanner_.Scan(*chunk).first_token) FirstToken(nullptr);
      bytes_sent_ += chunk->size();
      session_->WriteBody(id_, *chunk);
    }
    // The bytes are only referenced until the turn ends.
    context_.turn.Bury(std::make_unique<decltype(step.chunks)>(std::move(step.chunks)));
    if (step.more) continue;
    if (step.state == Flight::State::kComplete) {
      session_->WriteEnd(id_, {});
      return Finish();
    }
    if (step.state == Flight::State::kFailed) {
      return Fail(ReplyCode::kBackendReset, "the answer broke off at its backend");
    }
    return Rearm();
  }
  // Stopped because the client does not read.
  if (phase_ == Phase::kFollowing && session_ != nullptr) {
    unsent_ = session_->unsent(id_);
    due_.idle = context_.loop.now() + pool_->idle_timeout;
    Rearm();
  }
}

// One that was to lead, and leaves instead, may have been the last: nobody else would
// close the flight then.
void Exchange::StopFollowing() {
  if (shared_.reader == nullptr) return;
  const std::shared_ptr<Flight> flight = shared_.reader->flight();
  shared_.reader.reset();
  if (flight->state() == Flight::State::kFailed) pool_->cache->Close(flight, false, context_.loop.now());
}

// The head of the answer that is followed, unless a comment of ours has sent one. False:
// it does not fit behind that one.
bool Exchange::BeginFollowing(Flight::State state) {
  const Flight& flight = *shared_.reader->flight();
  const std::string type = flight.content_type();
  const bool events = type.starts_with("text/event-stream");
  if (bridged_ && (!events || flight.status() != 200)) {
    Fail(ReplyCode::kBackendBadAnswer, "the answer that this one shares is no stream of events after all");
    return false;
  }
  if (std::exchange(bridged_, false)) return true;
  events_ = events;
  if (!events) due_.comment = kNever;
  status_ = flight.status();
  const bool whole = state == Flight::State::kComplete && !events;
  SendFollowersHead(type, whole ? static_cast<int64_t>(flight.bytes()) : -1);
  return true;
}

void Exchange::SendFollowersHead(std::string_view type, int64_t length) {
  std::array<Header, 3> headers{{{"content-type", type, KnownHeader::kContentType},
                                 {"cache-control", "no-cache", KnownHeader::kCacheControl},
                                 {"x-accel-buffering", "no"}}};
  ResponseHead head;
  head.status = status_;
  head.headers = std::span(headers.data(), events_ ? 3 : type.empty() ? 0 : 1);
  head.framing = length < 0 ? Framing::kChunked : Framing::kLength;
  if (length >= 0) head.content_length = static_cast<uint64_t>(length);
  SendHead(head);
}

// The one that led failed before the first byte, and this one came first.
void Exchange::LeadFlight() {
  shared_.use = CacheUse::kLead;
  shared_.flight = shared_.reader->flight();
  shared_.reader.reset();
  Dispatch();
}

// The client has left; the answer goes on for those who follow it. The head's
// views die with the session, so this try is the last one: if it fails before its
// answer, one of the readers leads.
void Exchange::LeadAlone() {
  head_ = {};
  answer_paused_ = false;
  due_.hedge = due_.comment = kNever;
  due_.give_up = pool_->total_timeout > 0 ? start_ + pool_->total_timeout : kNever;  // Not its deadline.
  due_.is_total = true;
  for (Try& one : tries_) {
    if (!one.sent()) EndTry(one, Outcome::kClientLeft);
    if (one.call != nullptr) one.call->ResumeAnswer();
  }
  wake_ = std::make_shared<Exchange*>(this);
  WorkerContext& context = context_;
  const auto deserted = [&context, wake = wake_] {
    context.loop.Post([&context, wake] {
      Turn::Scope scope(context.turn);
      if (*wake != nullptr) (*wake)->OnDeserted();
    });
  };
  shared_.flight->OnDeserted(deserted);
  if (!shared_.flight->has_readers()) deserted();  // They left in between.
}

void Exchange::OnDeserted() {
  if (shared_.flight == nullptr || shared_.flight->has_readers()) return;
  EndUnread();
}

// Those who follow are told no more of the head than this, so not how it is packed.
void Exchange::BeginFlight(const ResponseHead& head) {
  if (shared_.flight == nullptr) return;
  const Header* const encoding = Find(head.headers, KnownHeader::kContentEncoding);
  if (encoding != nullptr && !EqualsIgnoringCase(encoding->value, "identity")) {
    CloseFlight(false);
    shared_.use = CacheUse::kBypass;
    shared_.detail = "encoded";
    return;
  }
  const Header* const type = Find(head.headers, KnownHeader::kContentType);
  shared_.flight->Begin(head.status, type == nullptr ? "" : type->value);
}

// A whole answer that can be trusted to be one: an end of the connection tells nothing,
// and a stream says itself that it is over (but for /v1/responses, which has no [DONE]).
bool Exchange::WorthKeeping(const Try& one) const {
  if (status_ != 200 || until_close_) return false;
  if (!events_) return true;
  return !one.error && (SaidDone() || (one.scanner.partial_bytes() == 0 && head_.path == "/v1/responses"));
}

// `keep`: for requests to come, too.
void Exchange::CloseFlight(bool complete, bool keep) {
  if (shared_.flight == nullptr) return;
  if (complete) {
    shared_.flight->Complete();
  } else {
    shared_.flight->Abandon();
  }
  pool_->cache->Close(shared_.flight, keep, context_.loop.now());
  shared_.flight.reset();
}

void Exchange::AddCacheStatus(std::array<Header, 12>& extra, size_t& count) {
  const size_t at = field_.size();
  auto out = std::back_inserter(field_);
  switch (shared_.use) {
    case CacheUse::kNone: return;
    case CacheUse::kHit: fmt::format_to(out, "penstock; hit; ttl={}", shared_.ttl / kSecond); break;
    case CacheUse::kJoined: fmt::format_to(out, "penstock; fwd=uri-miss; collapsed"); break;
    case CacheUse::kLead:
      fmt::format_to(out, "penstock; fwd={}{}", shared_.detail, status_ == 200 && !until_close_ ? "; stored" : "");
      break;
    case CacheUse::kBypass: fmt::format_to(out, "penstock; fwd=bypass; detail={}", shared_.detail); break;
  }
  const size_t end = field_.size();
  extra[count++] = {"cache-status", std::string_view(field_).substr(at, end - at),
                    KnownHeader::kCacheStatus};
  if (shared_.use == CacheUse::kHit) {
    fmt::format_to(out, "{}", shared_.age / kSecond);
    extra[count++] = {"age", std::string_view(field_).substr(end), KnownHeader::kAge};
  }
}

}  // namespace penstock
