#include "proxy/backends/load_watch.h"

#include <algorithm>
#include <utility>

#include "proxy/backends/pool_table.h"
#include "proxy/base/log.h"
#include "proxy/base/status.h"

namespace penstock {
namespace {

constexpr auto kRelaxed = std::memory_order_relaxed;
constexpr uint32_t kDoublingsMax = 6;
constexpr MonoTime kOverslept = kSecond;

}  // namespace

void LineSplitter::Clear() {
  partial_.clear();
  skipping_ = false;
}

LoadWatch::LoadWatch(const WatchSeams& seams, Backend& backend,
                     const config::LoadReports& settings, absl::AnyInvocable<void()> check,
                     config::Protocol protocol)
    : seams_(seams), backend_(backend), dialer_(backend, seams.dialer, seams.deadlines),
      settings_(settings), protocol_(protocol), stale_(ToMicros(settings.stale)),
      check_(std::move(check)) {
  if (protocol == config::Protocol::kHttp2) dialer_.SetAlpn({"h2"});
}

void LoadWatch::Restart() {
  speaking_ = no_push_ = unsupported_ = false;
  failures_ = 0;
  stream_.reset();
  poll_.reset();
  retry_.Cancel();
  if (settings_.push) Connect();
  SchedulePoll();
}

void LoadWatch::ConnectNow() {
  if (!settings_.push || stream_ != nullptr || no_push_) return;
  retry_.Cancel();
  Connect();
}

FetchOptions LoadWatch::Options(std::string target) const {
  FetchOptions options;
  options.target = std::move(target);
  options.authority = backend_.authority;
  options.http2 = protocol_ == config::Protocol::kHttp2;
  options.headers = {{"accept", "application/x-ndjson, application/json"}};
  options.body_bytes = kLoadLineMax;
  return options;
}

void LoadWatch::Connect() {
  lines_.Clear();
  complained_ = false;
  reports_ = 0;
  connected_ = seams_.now();
  const char separator = settings_.path.find('?') == std::string::npos ? '?' : '&';
  FetchOptions options = Options(settings_.path + separator + "watch=1");
  // A stream that says nothing for longer is dialled anew: its other end may have
  // gone without a word.
  options.idle_timeout = std::max(3 * stale_, 5 * kSecond);
  options.on_data = [this](std::string_view data) { OnData(data); };
  stream_ = Fetch::Start(dialer_, seams_.deadlines, backend_.address(), std::move(options),
                         [this](absl::StatusOr<FetchResult> result) { OnStreamEnd(result); });
}

void LoadWatch::OnData(std::string_view data) {
  const size_t too_long = lines_.Feed(data, [this](std::string_view line) { OnLine(line); });
  backend_.state.reports_invalid.fetch_add(too_long, kRelaxed);
}

void LoadWatch::OnLine(std::string_view line) { Take(line, lb::Rung::kPush); }

void LoadWatch::Take(std::string_view line, lb::Rung rung) {
  const auto report = ParseLoadLine(line, rung, seams_.now());
  if (!report.ok()) {
    backend_.state.reports_invalid.fetch_add(1, kRelaxed);
    if (!std::exchange(complained_, true)) {
      LogWarn("backend {}/{} at {}: {}", backend_.pool, backend_.name, backend_.authority,
              S(report.status().message()));
    }
    return;
  }
  if (rung == lb::Rung::kPush) {
    // A break without a check to answer it (checks are off) is answered by the next report.
    if (reports_++ == 0) {
      backend_.state.suspect.store(false, kRelaxed);
      if (PoolTable::Suspect(backend_)) check_();
    }
    speaking_ = true;
    last_line_ = seams_.now();
  }
  backend_.state.PublishReport(*report, stale_, true);
}

void LoadWatch::OnStreamEnd(const absl::StatusOr<FetchResult>& result) {
  const bool was_speaking = std::exchange(speaking_, false);
  const bool proven = reports_ > 0 && seams_.now() - connected_ >= kProven;
  // A whole answer that is no stream: this engine does not push.
  no_push_ = result.ok() && reports_ <= 1 && !proven;
  unsupported_ = no_push_ && reports_ == 0;
  if (proven) failures_ = 0;
  MonoTime wait = 0;
  if (no_push_) {
    wait = kRetryUnsupported;
    backend_.state.suspect.store(false, kRelaxed);
  } else if (!proven) {
    wait = std::min(kRetryFirst << std::min(failures_++, kDoublingsMax), kRetryMost);
  }
  retry_ = seams_.timers.After(seams_.Jittered(wait), [this] { Connect(); });
  if (was_speaking && !no_push_) {
    OnSilence("its load stream ended");
  } else if (!result.ok() && !PoolTable::Suspect(backend_)) {
    check_();  // It could not even be dialled, or broke off before its first word.
  }
  stream_.reset();
}

void LoadWatch::OnSilence(std::string_view what) {
  LogInfo("backend {}/{} at {}: {}; checking it, others are used first", backend_.pool,
          backend_.name, backend_.authority, what);
  backend_.state.suspect.store(true, kRelaxed);
  check_();
}

void LoadWatch::Tick() {
  const MonoTime now = seams_.now();
  // After a sleep of our own, what was said meanwhile is still to be read.
  if (now - std::exchange(last_tick_, now) > kOverslept) last_line_ = now;
  if (!speaking_ || seams_.now() - last_line_ <= stale_) return;
  speaking_ = false;
  OnSilence("its load stream fell silent");
}

void LoadWatch::SchedulePoll() {
  const MonoTime configured = ToMicros(settings_.poll);
  if (configured == 0 && !settings_.push) return;
  const MonoTime interval = configured > 0 ? configured : kPollDefault;
  poll_timer_ = seams_.timers.After(seams_.Jittered(interval), [this, configured] {
    const bool wanted = configured > 0 || (!speaking_ && !unsupported_);
    if (wanted && poll_ == nullptr) Poll();
    SchedulePoll();
  });
}

void LoadWatch::Poll() {
  poll_ = Fetch::Start(dialer_, seams_.deadlines, backend_.address(),
                       Options(settings_.path),
                       [this](absl::StatusOr<FetchResult> result) { OnPolled(result); });
}

void LoadWatch::OnPolled(const absl::StatusOr<FetchResult>& result) {
  if (result.ok() && result->status == 200) Take(result->body, lb::Rung::kPoll);
  poll_.reset();
}

}  // namespace penstock
