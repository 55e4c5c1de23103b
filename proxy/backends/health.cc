#include "proxy/backends/health.h"

#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "proxy/base/log.h"
#include "proxy/base/status.h"

namespace penstock {
namespace {

constexpr MonoTime kOverslept = kSecond;

// gRPC's own health service: a check of this path is a call of it.
constexpr std::string_view kGrpcCheck = "/grpc.health.v1.Health/Check";

// HealthCheckRequest{service: ""} in a frame of its own: a length of zero.
void MakeGrpcCheck(FetchOptions& options) {
  options.method = "POST";
  options.headers = {{"content-type", "application/grpc"}, {"te", "trailers"}};
  options.body.assign(5, '\0');
}

std::string_view FieldOf(const HeaderList& fields, std::string_view name) {
  const auto found = std::ranges::find_if(fields, [&](const auto& field) { return field.first == name; });
  return found == fields.end() ? std::string_view() : std::string_view(found->second);
}

// Empty: HealthCheckResponse{status: SERVING}, and that the call went well.
std::string GrpcComplaint(const FetchResult& result) {
  std::string_view status = FieldOf(result.trailers, "grpc-status");
  if (status.empty()) status = FieldOf(result.headers, "grpc-status");
  if (status != "0") return fmt::format("{} answered grpc-status {}", kGrpcCheck, status);
  constexpr std::string_view kServing("\0\0\0\0\2\x08\1", 7);
  return result.body == kServing ? "" : fmt::format("{} did not answer SERVING", kGrpcCheck);
}

}  // namespace

std::string_view Name(CheckResult result) {
  switch (result) {
    case CheckResult::kPassed: return "passed";
    case CheckResult::kFailed: return "failed";
    case CheckResult::kTimedOut: return "timeout";
    case CheckResult::kRefused: return "refused";
  }
  return "";
}

CheckResult ResultOf(const absl::Status& status) {
  if (absl::IsDeadlineExceeded(status)) return CheckResult::kTimedOut;
  // The dialer's words for ECONNREFUSED; an unreachable address is a failure that
  // may pass, a refused connection is the answer of a living machine.
  const bool refused = absl::IsUnavailable(status) &&
                       S(status.message()).find("connection refused") != std::string_view::npos;
  return refused ? CheckResult::kRefused : CheckResult::kFailed;
}

HealthCount::HealthCount(const config::HealthCheck& settings)
    : unhealthy_threshold_(std::max(1u, settings.unhealthy_threshold)),
      healthy_threshold_(std::max(1u, settings.healthy_threshold)) {}

Health HealthCount::After(Health health, CheckResult result) {
  counting_ = false;
  if (result == CheckResult::kPassed) {
    failures_ = 0;
    ++passes_;
    if (health == Health::kUnknown || health == Health::kHealthy) return Health::kHealthy;
    if (passes_ >= healthy_threshold_) return Health::kHealthy;
    counting_ = true;
    return health;
  }
  passes_ = 0;
  ++failures_;
  if (result == CheckResult::kRefused) return Health::kDown;
  if (health != Health::kHealthy || failures_ >= unhealthy_threshold_) return Health::kUnhealthy;
  counting_ = true;
  return health;
}

HealthChecker::HealthChecker(const WatchSeams& seams, Backend& backend,
                             const config::HealthCheck& settings, config::Protocol protocol)
    : seams_(seams),
      backend_(backend),
      dialer_(backend, seams.dialer, seams.deadlines),
      settings_(settings),
      protocol_(protocol),
      count_(settings) {
  if (protocol == config::Protocol::kHttp2) dialer_.SetAlpn({"h2"});
}

void HealthChecker::Restart() {
  if (!settings_.enabled) return;
  fetch_.reset();
  count_ = HealthCount(settings_);
  Begin();
}

void HealthChecker::CheckNow() {
  if (!settings_.enabled || fetch_ != nullptr) return;
  if (begun_ == 0 || backend_.address().text.empty()) return;
  const MonoTime next = begun_ + kSoonest;
  if (next <= seams_.now()) return Begin();
  timer_ = seams_.timers.At(next, [this] { Begin(); });
}

void HealthChecker::Begin() {
  timer_.Cancel();
  begun_ = seams_.now();
  FetchOptions options;
  options.target = settings_.path;
  options.authority = backend_.authority;
  options.http2 = protocol_ == config::Protocol::kHttp2;
  options.timeout = options.connect_timeout = ToMicros(settings_.timeout);
  options.body_bytes = 64 * 1024;
  const bool grpc = settings_.path == kGrpcCheck;
  if (grpc) MakeGrpcCheck(options);
  fetch_ = Fetch::Start(dialer_, seams_.deadlines, backend_.address(), std::move(options),
                        [this, grpc, timeout = options.timeout](absl::StatusOr<FetchResult> result) {
    // A timeout that is noticed much too late is of a process that was stopped itself.
    const bool overslept =
        absl::IsDeadlineExceeded(result.status()) && seams_.now() - begun_ > timeout + kOverslept;
    if (overslept || absl::IsResourceExhausted(result.status())) {
      Schedule();  // We could not ask: that says nothing about the backend.
      fetch_.reset();
    } else if (!result.ok()) {
      Finish(ResultOf(result.status()), S(result.status().message()));
    } else if (result->status < 200 || result->status > 299) {
      Finish(CheckResult::kFailed, fmt::format("GET {} answered {}", settings_.path, result->status));
    } else if (const std::string complaint = grpc ? GrpcComplaint(*result) : ""; !complaint.empty()) {
      Finish(CheckResult::kFailed, complaint);
    } else {
      Finish(CheckResult::kPassed, "");
    }
  });
}

void HealthChecker::Finish(CheckResult result, std::string_view reason) {
  BackendState& state = backend_.state;
  state.checks[static_cast<size_t>(result)].fetch_add(1, std::memory_order_relaxed);
  state.suspect.store(result != CheckResult::kPassed, std::memory_order_relaxed);
  backend_.SetTrouble(reason);
  const Health before = state.health();
  const Health after = count_.After(before, result);
  if (after != before) {
    state.SetHealth(after, seams_.now());
    if (after == Health::kHealthy) state.ForgetTtft();
    if (after == Health::kHealthy) {
      LogInfo("backend {}/{} at {}: healthy", backend_.pool, backend_.name, backend_.authority);
    } else {
      LogWarn("backend {}/{} at {}: {} (was {}): {}", backend_.pool, backend_.name,
              backend_.authority, Name(after), Name(before), reason);
    }
  }
  Schedule();
  fetch_.reset();
}

void HealthChecker::Schedule() {
  const MonoTime interval = ToMicros(settings_.interval);
  const bool soon = count_.counting() || backend_.state.health() != Health::kHealthy;
  const MonoTime wait = soon ? std::max(interval / 4, kSoonest) : interval;
  timer_ = seams_.timers.After(seams_.Jittered(wait), [this] { Begin(); });
}

}  // namespace penstock
