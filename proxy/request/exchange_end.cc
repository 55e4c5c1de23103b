// The end of a request: answers of our own, clients that leave, and the one place
// where everything that a request holds is given back.
#include <algorithm>
#include <array>
#include <optional>
#include <string>
#include <utility>

#include <fmt/format.h>

#include "proxy/base/check.h"
#include "proxy/request/exchange.h"
#include "proxy/request/grpc.h"
#include "proxy/request/session.h"

namespace penstock {
namespace {

constexpr size_t kBodyCapacityKept = 256 * 1024;
constexpr MonoTime kRetryAfterMax = 120 * kSecond;  // SDKs give up rather than wait for longer.

std::optional<Flag> FlagOf(ReplyCode code) {
  switch (code) {
    case ReplyCode::kBadRequest:
    case ReplyCode::kUriTooLong:
    case ReplyCode::kHeadersTooLarge:
    case ReplyCode::kMethodNotAllowed:
    case ReplyCode::kUnsupportedMedia:
    case ReplyCode::kLoopDetected:
    case ReplyCode::kNotImplemented: return Flag::kIH;
    case ReplyCode::kRequestTimeout: return Flag::kBT;
    case ReplyCode::kClientStalled: return Flag::kDC;
    case ReplyCode::kModelNotFound:
    case ReplyCode::kRouteNotFound: return Flag::kNR;
    case ReplyCode::kQueueFull:
    case ReplyCode::kOverloaded:
    case ReplyCode::kBodyTooLarge: return Flag::kUO;
    case ReplyCode::kNoHealthyBackend: return Flag::kUH;
    case ReplyCode::kBackendReset: return Flag::kUC;
    case ReplyCode::kBackendBadAnswer: return Flag::kUPE;
    case ReplyCode::kBackendTls:
    case ReplyCode::kConnectTimeout: return Flag::kUF;
    case ReplyCode::kFirstTokenTimeout: return Flag::kFT;
    case ReplyCode::kResponseTimeout: return Flag::kUT;
    case ReplyCode::kIdleTimeout: return Flag::kSI;
    case ReplyCode::kTotalTimeout: return Flag::kTT;
    case ReplyCode::kDeadlineExceeded: return Flag::kDE;
    default: return std::nullopt;
  }
}

// When to come again: `wait` at least, up to twice that, so that those who were turned
// away together do not come back together.
MonoTime Spread(MonoTime wait, Random& random) {
  wait = std::clamp<MonoTime>(wait, kSecond, kRetryAfterMax / 2);
  return wait + static_cast<MonoTime>(random.Unit() * static_cast<double>(wait));
}

}  // namespace

// Ends the request with an answer of ours, or with a cut if an answer has begun.
void Exchange::Fail(ReplyCode code, std::string_view message, std::string_view param,
                    MonoTime retry_after) {
  if (phase_ == Phase::kDone) return;
  if (session_ == nullptr) {  // Its client has left, which is what there is to tell of it.
    EndTries(Outcome::kClientLeft);
    return Finish();
  }
  const ReplyInfo& info = InfoOf(code);
  details_ = info.code;
  if (const std::optional<Flag> flag = FlagOf(code)) {
    (pool_ == nullptr ? context_.no_pool : pool_->cells).AddFlag(*flag);
    flag_ = kFlagNames[static_cast<size_t>(*flag)];
  }
  EndTries(Outcome::kClientLeft);  // Whoever knew better has ended them already.
  if (head_sent_) {
    if (grpc_ && session_->protocol() == ClientProtocol::kHttp2) {  // Its status comes last, and says it all.
      const std::string status = std::to_string(static_cast<int>(GrpcStatusOf(code)));
      const std::string text = GrpcMessage(message);
      const Header trailers[] = {{"grpc-status", status}, {"grpc-message", text}};
      session_->WriteEnd(id_, trailers);
      return Finish();
    }
    const bool stuck = code == ReplyCode::kRequestTimeout || code == ReplyCode::kClientStalled;
    if (events_) session_->WriteBody(id_, field_.assign(ErrorEvent(code, message)));
    Session* const session = std::exchange(session_, nullptr);
    Finish();
    session->Cut(id_, stuck);
    return;
  }
  std::array<Header, 12> extra;
  size_t count = 0;
  std::string seconds, millis, proxy_status;
  if (retry_after > 0 || info.status == 429 || info.status == 503) {
    const MonoTime wait = Spread(retry_after, context_.random);
    seconds = std::to_string((wait + kSecond - 1) / kSecond);  // Never before the other one.
    millis = std::to_string(wait / kMillisecond);
    extra[count++] = {"retry-after", seconds, KnownHeader::kRetryAfter};
    extra[count++] = {"retry-after-ms", millis};
  }
  if (!info.proxy_status.empty()) {
    proxy_status = fmt::format("penstock; error={}", info.proxy_status);
    extra[count++] = {"proxy-status", proxy_status, KnownHeader::kProxyStatus};
  }
  const bool again = info.should_retry && !budget_spent_;
  extra[count++] = {"x-should-retry", again ? "true" : "false", KnownHeader::kXShouldRetry};
  if (!request_complete_) session_->CloseAfterAnswer(id_);
  if (grpc_) {
    ReplyGrpc(code, message);
  } else {
    Reply(info.status, field_.assign(ErrorBody(code, message, param)), std::span(extra.data(), count));
  }
  status_ = info.status;
  Finish();
}

// An answer of trailers alone: gRPC clients look at nothing else.
void Exchange::ReplyGrpc(ReplyCode code, std::string_view message) {
  const std::string status = std::to_string(static_cast<int>(GrpcStatusOf(code)));
  const std::string text = GrpcMessage(message);
  Header headers[] = {{"content-type", "application/grpc", KnownHeader::kContentType},
                      {"x-request-id", request_id_, KnownHeader::kXRequestId},
                      {"grpc-status", status},
                      {"grpc-message", text}};
  ResponseHead head;
  head.status = 200;
  head.headers = headers;
  head_sent_ = true;
  session_->WriteHead(id_, head, {});
  session_->WriteEnd(id_, {});
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
  session_->WriteEnd(id_, {});
  bytes_sent_ += body.size();
}

// A client that leaves at [DONE] has its whole answer, though the message may not have ended.
void Exchange::OnClientGone(std::unique_ptr<Exchange> self) {
  Session* const session = std::exchange(session_, nullptr);
  if (phase_ == Phase::kDone) return;
  const bool took_all = SaidDone() && !session->broken() && session->unsent(id_) == 0;
  if (!took_all) {
    flag_ = kFlagNames[static_cast<size_t>(Flag::kDC)];
    details_ = "client_gone";
    (pool_ == nullptr ? context_.no_pool : pool_->cells).AddFlag(Flag::kDC);
    status_ = left_with_ = head_sent_ ? status_ : 499;
  }
  const bool sent = std::any_of(tries_.begin(), tries_.end(), [](const Try& one) { return one.sent(); });
  if (sent && shared_.flight != nullptr && shared_.flight->has_readers()) {
    context_.orphans.push_back(std::move(self));
    return LeadAlone();
  }
  EndUnread();
  context_.Recycle(std::move(self));
}

// Nobody is left to read this answer.
void Exchange::EndUnread() {
  if (SaidDone()) {
    Try& one = *answer_;
    EndTry(one, HowItEnded(one, {}), one.rest);
    CloseFlight(true, WorthKeeping(one));
  }
  EndTries(Outcome::kClientLeft);
  Finish();
}

// The stream of events that is passed on has ended by its own word.
bool Exchange::SaidDone() const {
  return answer_ != nullptr && events_ && answer_->scanner.saw_done() &&
         answer_->scanner.partial_bytes() == 0;
}

void Exchange::OnDrainLimit() {
  if (stream_ || events_ || tunnel_ || grpc_ || phase_ == Phase::kDone) return;
  Fail(ReplyCode::kDraining, "the proxy is stopping and waited long enough for this answer");
}

std::optional<MonoTime> Exchange::patience() const {
  return pool_ == nullptr ? std::nullopt : std::optional(pool_->idle_timeout);
}

// The one place where a request ends. The session, if any, gets its connection
// back; the exchange itself is recycled when the turn ends.
void Exchange::Finish() {
  if (phase_ == Phase::kDone) return;
  LeaveQueue();
  CloseFlight(false);
  StopFollowing();
  if (wake_) *wake_ = nullptr;
  deadline_.Clear();
  phase_ = Phase::kDone;
  Record();
  back_off_.Cancel();
  EndHedge(HedgeResult::kLost);
  if (used_.paid) pool_->budget.RetryEnded();
  if (pool_ != nullptr) {
    pool_->budget.RequestEnded();
    pool_->cells.active.Add(-1);
  }
  if (admitted_) context_.totals.requests.fetch_sub(1, std::memory_order_relaxed);
  context_.totals.buffered_bytes.fetch_sub(buffered_, std::memory_order_relaxed);
  context_.metrics.buffered_bytes.Add(-static_cast<int64_t>(buffered_));
  if (session_ != nullptr) {
    std::exchange(session_, nullptr)->ExchangeDone(id_, request_complete_);
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
  const uint16_t status = left_with_ != 0 ? left_with_ : status_;
  cells.AddRequest(status, stream_, now - start_);
  if (first_token_at_ > 0) cells.ttft.Observe(first_token_at_ - start_);
  if (context_.access_log == nullptr) return;
  static constexpr std::string_view kCacheWords[] = {"", "hit", "joined", "miss", "bypass"};
  context_.access_log->Write(
      {.start = context_.loop.wall_now() - absl::Microseconds(now - start_),
       .request_id = request_id_,
       .method = head_.method,
       .path = head_.path,
       .protocol = protocol_,
       .route = route_,
       .pool = pool_ == nullptr ? std::string_view() : pool_->settings.name,
       .backend = backend_name_,
       .model = model_,
       .cache = kCacheWords[static_cast<size_t>(shared_.use)],
       .flag = flag_,
       .details = details_,
       .client = client_,
       .status = status,
       .stream = stream_,
       .attempts = attempts_,
       .bytes_received = bytes_received_,
       .bytes_sent = bytes_sent_,
       .duration_us = now - start_,
       .ttft_us = first_token_at_ > 0 ? first_token_at_ - start_ : -1});
}

// Makes it as good as new, keeping what was allocated.
void Exchange::Clear() {
  CHECK(phase_ == Phase::kDone && Live() == nullptr);
  if (body_.capacity() > kBodyCapacityKept) std::string().swap(body_);
  body_.clear();
  scanner_.Clear();
  snapshot_.reset();
  shared_ = {};
  wake_.reset();
  pool_ = nullptr;
  route_ = model_ = renamed_ = upgrade_ = request_id_ = flag_ = details_ = {};
  backend_name_.clear();
  last_failure_ = {};
  retry_reason_.reset();
  tried_count_ = 0;
  used_ = {};
  answer_ = nullptr;
  attempts_ = prompt_tokens_ = 0;
  unsent_ = 0;
  grpc_ = body_held_ = false;
  grpc_status_.reset();
  inference_ = stream_ = deterministic_ = request_complete_ = body_lost_ = head_sent_ = false;
  events_ = until_close_ = answer_paused_ = fresh_ = stale_retried_ = false;
  admitted_ = has_waited_ = budget_spent_ = bridged_ = hedged_ = hedge_paid_ = tunnel_ = false;
  status_ = left_with_ = 0;
  bytes_received_ = bytes_sent_ = buffered_ = 0;
  body_whole_ = queued_since_ = 0;
  first_sent_ = first_token_at_ = 0;
  client_deadline_ = {};
  due_ = {};
}

}  // namespace penstock
