// The beginning and the end of a request. The choice of a backend and the relay
// of its answer are in exchange_backend.cc, shared results in exchange_cache.cc.
#include "proxy/request/exchange.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <utility>

#include <fmt/format.h>

#include "proxy/base/check.h"
#include "proxy/base/status.h"
#include "proxy/request/session.h"

namespace penstock {
namespace {

constexpr size_t kBodyCapacityKept = 256 * 1024;

bool ValidRequestId(std::string_view id) {
  if (id.empty() || id.size() > 63) return false;
  return std::all_of(id.begin(), id.end(), [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' ||
           c == '_' || c == '.' || c == ':';
  });
}

constexpr auto kHexPairs = [] {
  constexpr char kHex[] = "0123456789abcdef";
  std::array<std::array<char, 2>, 256> pairs{};
  for (size_t i = 0; i < pairs.size(); ++i) pairs[i] = {kHex[i >> 4], kHex[i & 15]};
  return pairs;
}();

// Takes as long for a wrong key as for a right one of the same length.
bool SameSecret(std::string_view a, std::string_view b) {
  if (a.size() != b.size()) return false;
  unsigned char difference = 0;
  for (size_t i = 0; i < a.size(); ++i) difference |= static_cast<unsigned char>(a[i] ^ b[i]);
  return difference == 0;
}

std::optional<Flag> FlagOf(ReplyCode code) {
  switch (code) {
    case ReplyCode::kBadRequest:
    case ReplyCode::kUriTooLong:
    case ReplyCode::kHeadersTooLarge:
    case ReplyCode::kNotImplemented: return Flag::kIH;
    case ReplyCode::kModelNotFound:
    case ReplyCode::kRouteNotFound: return Flag::kNR;
    case ReplyCode::kQueueFull:
    case ReplyCode::kOverloaded:
    case ReplyCode::kBodyTooLarge: return Flag::kUO;
    case ReplyCode::kNoHealthyBackend: return Flag::kUH;
    case ReplyCode::kBackendReset: return Flag::kUC;
    case ReplyCode::kBackendBadAnswer: return Flag::kUPE;
    case ReplyCode::kConnectTimeout: return Flag::kUF;
    case ReplyCode::kFirstTokenTimeout:
    case ReplyCode::kIdleTimeout: return Flag::kUT;
    default: return std::nullopt;
  }
}

}  // namespace

Exchange::Exchange(WorkerContext& context)
    : context_(context), deadline_(context.loop.deadlines(), &Exchange::OnDeadline, this) {}

Exchange::~Exchange() = default;

void Exchange::Start(Session& session, MessageId id, RequestHead& head) {
  session_ = &session;
  id_ = id;
  head_ = head;
  snapshot_ = context_.snapshot;
  start_ = context_.loop.now();
  phase_ = Phase::kBody;
  if (context_.access_log != nullptr) client_.assign(session.peer());
  request_complete_ = head_.framing == Framing::kNone;
  SetRequestId();
  DropHopByHop(head_.headers);
  if (!Admit() || AnswerLocally()) return;
  inference_ = IsInferencePath(head_.method, head_.path);
  const config::Limits& limits = snapshot_->server().limits;
  if (inference_ && head_.framing == Framing::kLength && head_.content_length > limits.request_body) {
    return Fail(ReplyCode::kBodyTooLarge,
                fmt::format("the body has {} bytes; up to {} are taken (server.limits.request_body)",
                            head_.content_length, limits.request_body));
  }
  if (head_.expect_continue) session_->WriteContinue(id_);
  deadline_.Set(start_ + ToMicros(snapshot_->server().request_body_idle_timeout));
  if (inference_) return;  // OnRequestEnd goes on.
  if (FindPool("") && Authorize()) Dispatch();
}

void Exchange::SetRequestId() {
  for (Header& header : head_.headers) {
    if (header.id != KnownHeader::kXRequestId) continue;
    header.dropped = true;
    if (request_id_.empty() && ValidRequestId(header.value)) {
      std::memcpy(request_id_storage_.data(), header.value.data(), header.value.size());
      request_id_ = {request_id_storage_.data(), header.value.size()};
    }
  }
  if (!request_id_.empty()) return;
  size_t at = 0;
  for (int word = 0; word < 2; ++word) {
    uint64_t random = context_.random.Next();
    for (int byte = 0; byte < 8; ++byte, random >>= 8, at += 2) {
      std::memcpy(request_id_storage_.data() + at, kHexPairs[random & 255].data(), 2);
    }
  }
  request_id_ = {request_id_storage_.data(), at};
}

bool Exchange::Admit() {
  const uint32_t limit = snapshot_->server().limits.requests;
  admitted_ = true;
  if (context_.totals.requests.fetch_add(1, std::memory_order_relaxed) < limit) return true;
  Fail(ReplyCode::kOverloaded,
       fmt::format("{} requests are in progress, which is the limit (server.limits.requests)", limit),
       {}, kSecond);
  return false;
}

bool Exchange::AnswerLocally() {
  if (head_.method != "GET" || !head_.path.starts_with("/v1/models")) return false;
  const bool any_models = std::any_of(snapshot_->fleet->config->pools.begin(),
                                      snapshot_->fleet->config->pools.end(),
                                      [](const config::Pool& pool) { return !pool.models.empty(); });
  if (!any_models) return false;  // The backends know their models themselves.
  const std::string_view rest = head_.path.substr(std::strlen("/v1/models"));
  if (rest.empty()) {
    Reply(200, snapshot_->routes.models_json(), {});
    Finish();
    return true;
  }
  if (rest.front() != '/') return false;
  const std::string model = snapshot_->routes.ModelJson(rest.substr(1));
  if (model.empty()) {
    Fail(ReplyCode::kModelNotFound,
         fmt::format("there is no model \"{}\"; GET /v1/models lists those there are",
                     rest.substr(1, 128)));
  } else {
    Reply(200, model, {});
    Finish();
  }
  return true;
}

void Exchange::OnRequestBody(std::string_view data) {
  bytes_received_ += data.size();
  if (phase_ == Phase::kDone) return;
  deadline_.Set(std::max(deadline_.armed() ? deadline_.when() : 0,
                         context_.loop.now() + ToMicros(snapshot_->server().request_body_idle_timeout)));
  if (!inference_ && conn_ != nullptr && phase_ != Phase::kConnecting) {
    body_streamed_ = true;
    conn_->WriteBody(data);
    if (conn_->above_mark()) session_->PauseBody();
    return;
  }
  const config::Limits& limits = snapshot_->server().limits;
  if (inference_ && body_.size() + data.size() > limits.request_body) {
    return Fail(ReplyCode::kBodyTooLarge,
                fmt::format("the body has more than {} bytes (server.limits.request_body)",
                            limits.request_body));
  }
  buffered_ += data.size();
  context_.metrics.buffered_bytes.Add(static_cast<int64_t>(data.size()));
  if (context_.totals.buffered_bytes.fetch_add(data.size(), std::memory_order_relaxed) + data.size() >
      limits.buffered_bytes) {
    return Fail(ReplyCode::kOverloaded, "too many bytes of requests are waiting; try again soon", {},
                kSecond);
  }
  body_.append(data);
  if (!inference_ && body_.size() > kHeldMax) session_->PauseBody();
}

void Exchange::OnRequestEnd() {
  request_complete_ = true;
  if (phase_ == Phase::kDone) return;
  if (inference_) return OnBodyWhole();
  if (conn_ != nullptr && head_.framing != Framing::kNone && phase_ != Phase::kConnecting) {
    conn_->WriteEnd({});
    if (phase_ == Phase::kAwaiting) AwaitAnswer();
  }
}

void Exchange::OnBodyWhole() {
  deadline_.Clear();
  body_whole_ = context_.loop.ReadClock();
  context_.peeker.SetDepthMax(snapshot_->server().limits.json_depth);
  const absl::StatusOr<PeekedRequest> peeked = context_.peeker.Peek(body_);
  if (!peeked.ok()) return Fail(ReplyCode::kBadRequest, S(peeked.status().message()));
  model_storage_.assign(peeked->model.substr(0, 256));
  model_ = model_storage_;
  stream_ = peeked->stream;
  deterministic_ = peeked->deterministic();
  prompt_tokens_ = peeked->prompt_tokens_estimate;
  if (!FindPool(peeked->model) || !Authorize()) return;
  if (UseCache()) return;
  Dispatch();
}

bool Exchange::FindPool(std::string_view model) {
  const auto found = snapshot_->routes.Find(head_.path, model);
  if (const auto* none = std::get_if<RouteTable::NoMatch>(&found)) {
    Fail(none->code, none->message, none->code == ReplyCode::kModelNotFound ? "model" : "");
    return false;
  }
  const auto& match = std::get<RouteTable::Match>(found);
  pool_ = snapshot_->pools[match.pool].get();
  route_ = match.route;
  pool_->budget.RequestBegun();
  pool_->cells.active.Add(+1);
  return true;
}

bool Exchange::Authorize() {
  const config::Auth& auth = pool_->settings.auth;
  if (auth.mode == config::AuthMode::kPass) return true;
  for (Header& header : head_.headers) {
    if (header.id != KnownHeader::kAuthorization) continue;
    header.dropped = auth.mode == config::AuthMode::kReplace;
    std::string_view value = header.value;
    if (!value.starts_with("Bearer ")) continue;
    value.remove_prefix(std::strlen("Bearer "));
    for (const std::string& key : auth.keys) {
      if (SameSecret(key, value)) return true;
    }
  }
  if (auth.mode == config::AuthMode::kReplace) return true;
  Fail(ReplyCode::kUnauthorized, "a valid API key is required: Authorization: Bearer KEY");
  return false;
}

void Exchange::OnBadRequestBody(ReplyCode code, std::string_view message) { Fail(code, message); }

// Ends the request with an answer of ours, or with a cut if an answer has begun.
void Exchange::Fail(ReplyCode code, std::string_view message, std::string_view param,
                    MonoTime retry_after) {
  if (phase_ == Phase::kDone) return;
  const ReplyInfo& info = InfoOf(code);
  details_ = info.code;
  if (const std::optional<Flag> flag = FlagOf(code)) {
    (pool_ == nullptr ? context_.no_pool : pool_->cells).AddFlag(*flag);
    flag_ = kFlagNames[static_cast<size_t>(*flag)];
  }
  EndAttempt(Outcome::kClientLeft);  // Whoever knew better has ended it already.
  LeaveConnection();
  if (session_ != nullptr && head_sent_) {
    const bool stuck = code == ReplyCode::kRequestTimeout;
    if (events_) session_->WriteBody(id_, field_.assign(ErrorEvent(code, message)));
    Session* const session = std::exchange(session_, nullptr);
    Finish();
    session->Cut(stuck);
    return;
  }
  if (session_ != nullptr) {
    std::array<Header, 12> extra;
    size_t count = 0;
    std::string retry, proxy_status;
    if (retry_after > 0 || info.status == 429 || info.status == 503) {
      retry = std::to_string(std::clamp<MonoTime>((retry_after + kSecond - 1) / kSecond, 1, 120));
      extra[count++] = {"retry-after", retry, KnownHeader::kRetryAfter};
    }
    if (!info.proxy_status.empty()) {
      proxy_status = fmt::format("penstock; error={}", info.proxy_status);
      extra[count++] = {"proxy-status", proxy_status, KnownHeader::kProxyStatus};
    }
    if (info.should_not_retry) extra[count++] = {"x-should-retry", "false", KnownHeader::kXShouldRetry};
    if (!request_complete_) session_->CloseAfterAnswer();
    Reply(info.status, field_.assign(ErrorBody(code, message, param)), std::span(extra.data(), count));
  }
  status_ = info.status;
  Finish();
}

// A whole JSON answer of ours. `body` outlives the turn (a member or the snapshot's).
void Exchange::Reply(uint16_t status, std::string_view body, std::span<const Header> extra) {
  std::array<Header, 16> headers;
  size_t count = 0;
  headers[count++] = {"content-type", "application/json", KnownHeader::kContentType};
  headers[count++] = {"x-request-id", request_id_, KnownHeader::kXRequestId};
  for (const Header& header : extra) headers[count++] = header;
  ResponseHead head;
  head.status = status;
  head.headers = std::span(headers.data(), count);
  head.framing = Framing::kLength;
  head.content_length = body.size();
  status_ = status;
  head_sent_ = true;
  session_->WriteHead(id_, head, {});
  // Copied by way of the gather's scratch if short; long bodies are the snapshot's
  // or this exchange's, which is not reused before the turn ends.
  session_->WriteBody(id_, body);
  session_->WriteEnd(id_);
  bytes_sent_ += body.size();
}

void Exchange::OnClientGone(std::unique_ptr<Exchange> self) {
  session_ = nullptr;
  if (phase_ == Phase::kDone) return;
  const bool sent = phase_ == Phase::kAwaiting || phase_ == Phase::kRelaying;
  if (sent && flight_ != nullptr && flight_->has_readers()) {
    context_.orphans.push_back(std::move(self));
    return LeadAlone();
  }
  flag_ = kFlagNames[static_cast<size_t>(Flag::kDC)];
  details_ = "client_gone";
  (pool_ == nullptr ? context_.no_pool : pool_->cells).AddFlag(Flag::kDC);
  status_ = head_sent_ ? status_ : 499;
  EndAttempt(Outcome::kClientLeft);
  LeaveConnection();
  Finish();
  context_.Recycle(std::move(self));
}

void Exchange::OnDrainLimit() {
  if (stream_ || events_ || phase_ == Phase::kDone) return;
  Fail(ReplyCode::kDraining, "the proxy is stopping and waited long enough for this answer");
}

// The one place where a request ends. The session, if any, gets its connection
// back; the exchange itself is recycled when the turn ends.
void Exchange::Finish() {
  if (phase_ == Phase::kDone) return;
  LeaveQueue();
  CloseFlight(false);
  reader_.reset();
  if (wake_) *wake_ = nullptr;
  deadline_.Clear();
  phase_ = Phase::kDone;
  Record();
  if (tries_.paid) pool_->budget.RetryEnded();
  if (pool_ != nullptr) {
    pool_->budget.RequestEnded();
    pool_->cells.active.Add(-1);
  }
  if (admitted_) context_.totals.requests.fetch_sub(1, std::memory_order_relaxed);
  context_.totals.buffered_bytes.fetch_sub(buffered_, std::memory_order_relaxed);
  context_.metrics.buffered_bytes.Add(-static_cast<int64_t>(buffered_));
  if (session_ != nullptr) {
    std::exchange(session_, nullptr)->ExchangeDone(*this, request_complete_);
    return;
  }
  auto& orphans = context_.orphans;
  const auto own = std::find_if(orphans.begin(), orphans.end(),
                                [this](const auto& orphan) { return orphan.get() == this; });
  if (own == orphans.end()) return;  // OnClientGone recycles it.
  std::unique_ptr<Exchange> self = std::move(*own);
  orphans.erase(own);
  context_.Recycle(std::move(self));
}

void Exchange::Record() {
  const MonoTime now = context_.loop.now();
  PoolCells& cells = pool_ == nullptr ? context_.no_pool : pool_->cells;
  cells.AddRequest(status_, stream_, now - start_);
  if (first_token_at_ > 0) cells.ttft.Observe(first_token_at_ - start_);
  if (context_.access_log == nullptr) return;
  static constexpr std::string_view kCacheWords[] = {"", "hit", "joined", "miss", "bypass"};
  context_.access_log->Write(
      {.start = context_.loop.wall_now() - absl::Microseconds(now - start_),
       .request_id = request_id_,
       .method = head_.method,
       .path = head_.path,
       .route = route_,
       .pool = pool_ == nullptr ? std::string_view() : pool_->settings.name,
       .backend = backend_name_,
       .model = model_,
       .cache = kCacheWords[static_cast<size_t>(cache_use_)],
       .flag = flag_,
       .details = details_,
       .client = client_,
       .status = status_,
       .stream = stream_,
       .attempts = attempts_,
       .bytes_received = bytes_received_,
       .bytes_sent = bytes_sent_,
       .duration_us = now - start_,
       .ttft_us = first_token_at_ > 0 ? first_token_at_ - start_ : -1});
}

// Makes it as good as new, keeping what was allocated.
void Exchange::Clear() {
  CHECK(phase_ == Phase::kDone && conn_ == nullptr && !attempt_.begun());
  if (body_.capacity() > kBodyCapacityKept) std::string().swap(body_);
  body_.clear();
  held_event_.clear();
  held_head_.held = false;
  scanner_.Clear();
  snapshot_.reset();
  flight_.reset();
  wake_.reset();
  pool_ = nullptr;
  route_ = model_ = request_id_ = cache_detail_ = flag_ = details_ = {};
  backend_name_.clear();
  last_failure_ = {};
  tried_count_ = 0;
  tries_ = {};
  attempts_ = prompt_tokens_ = 0;
  unsent_ = 0;
  cache_use_ = CacheUse::kNone;
  inference_ = stream_ = deterministic_ = request_complete_ = body_streamed_ = head_sent_ = false;
  events_ = first_token_seen_ = answer_paused_ = fresh_ = stale_retried_ = false;
  admitted_ = false;
  status_ = 0;
  bytes_received_ = bytes_sent_ = buffered_ = 0;
  event_count_ = body_whole_ = queued_since_ = 0;
  sent_ = limit_ = first_token_at_ = cache_age_ = cache_ttl_ = 0;
}

void Exchange::OnDeadline(void* self) {
  auto& exchange = *static_cast<Exchange*>(self);
  Turn::Scope scope(exchange.context_.turn);
  exchange.OnTimeout();
}

void Exchange::BodyStopped() {
  (pool_ == nullptr ? context_.no_pool : pool_->cells).AddTimeout(TimeoutKind::kRequestBody);
  Fail(ReplyCode::kRequestTimeout, "the request's body stopped arriving");
}

// A client that takes nothing of its answer: no fault of the backend.
void Exchange::CheckClient() {
  const size_t unsent = session_->unsent();
  if (std::exchange(unsent_, unsent) != unsent) {
    return deadline_.Set(context_.loop.now() + pool_->idle_timeout);
  }
  pool_->cells.AddFlag(Flag::kDC);
  EndAttempt(Outcome::kClientLeft);
  Fail(ReplyCode::kRequestTimeout, "the client stopped reading its answer");
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

}  // namespace penstock
