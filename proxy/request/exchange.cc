// The beginning of a request: its head, its body, its pool. How it goes on is in the
// files beside this one: exchange_cache.cc (an answer shared with others),
// exchange_choice.cc (which backend), exchange_backend.cc (the try there),
// exchange_relay.cc (its answer), exchange_time.cc (what may last how long) and
// exchange_end.cc.
#include "proxy/request/exchange.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include <fmt/format.h>

#include "proxy/base/status.h"
#include "proxy/request/grpc.h"
#include "proxy/request/request_id.h"
#include "proxy/request/session.h"

namespace penstock {
namespace {

bool ValidRequestId(std::string_view id) {
  if (id.empty() || id.size() > 63) return false;
  return std::all_of(id.begin(), id.end(), [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' ||
           c == '_' || c == '.' || c == ':';
  });
}

// What a body has to itself because its length promises as much; a larger one grows.
constexpr uint64_t kReservedMax = 1024 * 1024;

// Takes as long for a wrong key as for a right one of the same length.
bool SameSecret(std::string_view a, std::string_view b) {
  if (a.size() != b.size()) return false;
  unsigned char difference = 0;
  for (size_t i = 0; i < a.size(); ++i) difference |= static_cast<unsigned char>(a[i] ^ b[i]);
  return difference == 0;
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
  protocol_ = session.version();
  phase_ = Phase::kBody;
  const bool first_time = forwarding_.Read(snapshot_->forwarding, session.peer(), session.secure(), head_);
  if (context_.access_log != nullptr) client_.assign(forwarding_.client());
  request_complete_ = head_.framing == Framing::kNone;
  SetRequestId();
  DropHopByHop(head_.headers);
  if (!first_time) {
    return Fail(ReplyCode::kLoopDetected, fmt::format("this request has passed {} before: its Via says so",
                                                      snapshot_->server().forwarding.via));
  }
  client_deadline_ = ReadDeadline(head_.headers);
  if (client_deadline_.time != kNever) due_.give_up = start_ + client_deadline_.time;
  if (!Admit() || AnswerLocally()) return;
  inference_ = IsInferencePath(head_.method, head_.path);
  if (inference_ && !TakesEncoding()) return;
  grpc_ = !inference_ && IsGrpc(head_);
  const config::Limits& limits = snapshot_->server().limits;
  if (inference_ && head_.framing == Framing::kLength && head_.content_length > limits.request_body) {
    return Fail(ReplyCode::kBodyTooLarge,
                fmt::format("the body has {} bytes; up to {} are taken (server.limits.request_body)",
                            head_.content_length, limits.request_body));
  }
  if (head_.expect_continue) session_->WriteContinue(id_);
  const MonoTime grace = ToMicros(snapshot_->server().request_body_idle_timeout);
  due_.body = start_ + grace;
  pace_.Begin(start_, grace, limits.request_body_rate);
  Rearm();
  if (inference_) return;  // OnRequestEnd goes on.
  if (!FindPool("") || !Authorize()) return;
  if (head_.upgrade) FindUpgrade();
  Dispatch();
}

// A body is read as it comes: unpacking could make much of little.
bool Exchange::TakesEncoding() {
  const Header* const encoding = Find(head_.headers, KnownHeader::kContentEncoding);
  if (encoding == nullptr || EqualsIgnoringCase(encoding->value, "identity")) return true;
  Fail(ReplyCode::kUnsupportedMedia, "a prompt is sent without Content-Encoding");
  return false;
}

void Exchange::SetRequestId() {
  const bool keep = snapshot_->server().forwarding.preserve_external_request_id || forwarding_.trusted();
  for (Header& header : head_.headers) {
    if (header.id != KnownHeader::kXRequestId) continue;
    header.dropped = true;
    if (keep && request_id_.empty() && ValidRequestId(header.value)) {
      std::memcpy(request_id_storage_.data(), header.value.data(), header.value.size());
      request_id_ = {request_id_storage_.data(), header.value.size()};
    }
  }
  if (!request_id_.empty()) return;
  request_id_ = MakeRequestId(context_.random, request_id_storage_.data());
}

bool Exchange::Admit() {
  const uint32_t limit = snapshot_->server().limits.requests;
  admitted_ = true;
  if (context_.totals.requests.fetch_add(1, std::memory_order_relaxed) >= limit) {
    Fail(ReplyCode::kOverloaded,
         fmt::format("{} requests are in progress, which is the limit (server.limits.requests)", limit),
         {}, kSecond);
    return false;
  }
  const bool full = context_.pressure() >= Pressure::kReject;
  if (!full && (context_.shed_chance == 0 || context_.random.Unit() >= context_.shed_chance)) return true;
  (full ? context_.metrics.shed_for_memory : context_.metrics.shed_for_delay).Add();
  Fail(ReplyCode::kOverloaded,
       full ? "the proxy is short of memory; try again soon" : "the proxy is too busy; try again soon", {},
       2 * kSecond);
  return false;
}

bool Exchange::AnswerLocally() {
  if (head_.path == "*") {   // OPTIONS of the proxy itself.
    const Header allow{"allow", kMethods};
    Reply(200, "", std::span(&allow, 1));
    Finish();
    return true;
  }
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
    Reply(200, field_.assign(model), {});
    Finish();
  }
  return true;
}

void Exchange::OnRequestBody(std::string_view data) {
  bytes_received_ += data.size();
  if (phase_ == Phase::kDone) return;
  if (tunnel_) return OnTunnelBytes(data);
  const MonoTime next = context_.loop.now() + ToMicros(snapshot_->server().request_body_idle_timeout);
  if (phase_ == Phase::kRelaying) due_.idle = std::max(due_.idle, next);
  Try* const one = Live();
  const bool sent = !inference_ && one != nullptr && one->sent();
  due_.body = sent && grpc_ ? kNever : next;
  pace_.Got(data.size());
  Rearm();
  if (sent) {
    body_held_ = body_held_ && body_.size() + data.size() <= kHeldMax && one->stage == Try::Stage::kAwaiting;
    // Kept for sending again, as far as the policy file says.
    const bool keep = !body_lost_ && body_.size() + data.size() <= pool_->settings.retry.body_bytes;
    const bool kept = (keep || body_held_) && Buffer(data);
    body_lost_ = body_lost_ || !keep || !kept;
    body_held_ = body_held_ && kept;
    one->call->WriteBody(data);
    if (one->call->above_mark()) HoldBody();
    return;
  }
  const config::Limits& limits = snapshot_->server().limits;
  if (inference_ && body_.size() + data.size() > limits.request_body) {
    return Fail(ReplyCode::kBodyTooLarge,
                fmt::format("the body has more than {} bytes (server.limits.request_body)",
                            limits.request_body));
  }
  if (!Buffer(data)) {
    return Fail(ReplyCode::kOverloaded, "too many bytes of requests are waiting; try again soon", {},
                kSecond);
  }
  if (!inference_ && body_.size() > kHeldMax) HoldBody();
}

void Exchange::HoldBody() {
  pace_.Hold(context_.loop.now());
  session_->PauseBody(id_);
}

void Exchange::TakeBody() {
  const MonoTime now = context_.loop.now();
  if (pace_.held() && due_.body != kNever) {
    due_.body = now + ToMicros(snapshot_->server().request_body_idle_timeout);
  }
  pace_.GoOn(now);
  session_->ResumeBody(id_);
}

// False: all requests together hold too much.
bool Exchange::Buffer(std::string_view data) {
  if (context_.totals.buffered_bytes.fetch_add(data.size(), std::memory_order_relaxed) + data.size() >
      snapshot_->server().limits.buffered_bytes) {
    context_.totals.buffered_bytes.fetch_sub(data.size(), std::memory_order_relaxed);
    return false;
  }
  buffered_ += data.size();
  context_.metrics.buffered_bytes.Add(static_cast<int64_t>(data.size()));
  if (body_.empty() && inference_ && head_.framing == Framing::kLength) {
    const auto size = static_cast<size_t>(std::min<uint64_t>(head_.content_length, kReservedMax));
    body_.reserve(size + Peeker::kPadding);
  }
  body_.append(data);
  return true;
}

void Exchange::OnRequestEnd(std::span<Header> trailers) {
  request_complete_ = true;
  if (phase_ == Phase::kDone) return;
  if (tunnel_) return answer_->call->WriteEnd({});
  if (inference_) return OnBodyWhole();
  Try* const one = Live();
  if (one != nullptr && one->sent() && head_.framing != Framing::kNone) {
    DropFromTrailers(trailers);
    one->call->WriteEnd(trailers);
    if (phase_ == Phase::kTrying) AwaitAnswer(*one);
  }
}

void Exchange::OnBodyWhole() {
  due_.body = kNever;
  body_whole_ = context_.loop.ReadClock();
  context_.peeker.SetDepthMax(snapshot_->server().limits.json_depth);
  const absl::StatusOr<PeekedRequest> peeked = context_.peeker.Peek(body_);
  if (!peeked.ok()) return Fail(ReplyCode::kBadRequest, S(peeked.status().message()));
  model_storage_.assign(peeked->model.substr(0, 256));
  model_ = model_storage_;
  stream_ = peeked->stream;
  deterministic_ = peeked->deterministic();
  prompt_tokens_ = peeked->prompt_tokens_estimate;
  if (!FindPool(peeked->model) || !Authorize() || !UseOwnName()) return;
  if (UseCache()) return;
  Dispatch();
}

// Asked for by an alias: the backend knows the model by its own name, and so does the
// cache, where an alias that moves to another model must not find the old one's answers.
bool Exchange::UseOwnName() {
  if (renamed_.empty()) return true;
  const absl::Status renamed = context_.peeker.RenameModel(renamed_, body_);
  if (!renamed.ok()) Fail(ReplyCode::kBadRequest, S(renamed.message()));
  return renamed.ok();
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
  renamed_ = match.renamed;
  pool_->budget.RequestBegun();
  pool_->cells.active.Add(+1);
  if (pool_->total_timeout > 0 && start_ + pool_->total_timeout < due_.give_up) {
    due_.give_up = start_ + pool_->total_timeout;
    due_.is_total = true;
  }
  return true;
}

bool Exchange::Authorize() {
  const config::Auth& auth = pool_->settings.auth;
  if (auth.mode == config::AuthMode::kPass) return true;
  size_t fields = 0;
  bool known = false;
  for (Header& header : head_.headers) {
    if (header.id != KnownHeader::kAuthorization) continue;
    ++fields;
    header.dropped = auth.mode == config::AuthMode::kReplace;
    std::string_view value = header.value;
    if (!value.starts_with("Bearer ")) continue;
    value.remove_prefix(std::strlen("Bearer "));
    for (const std::string& key : auth.keys) known |= SameSecret(key, value);
  }
  if (auth.mode == config::AuthMode::kReplace) return true;
  if (known && fields == 1) return true;   // Of several, a backend could mean another one.
  Fail(ReplyCode::kUnauthorized, "a valid API key is required: Authorization: Bearer KEY");
  return false;
}

void Exchange::OnBadRequestBody(ReplyCode code, std::string_view message) { Fail(code, message); }

}  // namespace penstock
