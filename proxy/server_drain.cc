// The end: not ready, then no new connections, then no requests, then gone.
#include <algorithm>

#include "proxy/base/log.h"
#include "proxy/server.h"
#include "proxy/systemd.h"

namespace penstock {
namespace {

constexpr MonoTime kDrainTick = 50 * kMillisecond;
constexpr MonoTime kTellEvery = 5 * kSecond;

}  // namespace

// The first one drains. One more, or one before there is anything to drain, ends it.
void Server::OnTerminate() {
  ++terminations_;
  if (!live_ || terminations_ > 1) {
    if (live_) LogWarn("stopping at once");
    return loop_->Stop();
  }
  BeginDrain();
}

void Server::BeginDrain() {
  if (leaving_) return;
  leaving_ = true;
  Notify("STOPPING=1");
  const absl::Duration delay = fleet_->config->server.drain_delay;
  if (delay == absl::ZeroDuration()) return StopAccepting(false);
  LogInfo("draining: not ready, and serving for {} still", absl::FormatDuration(delay));
  drain_timer_ = loop_->timers().After(ToMicros(delay), [this] { StopAccepting(false); });
}

void Server::StopAccepting(bool handed_over) {
  leaving_ = draining_ = true;
  drain_began_ = drain_told_ = loop_->now();
  LogInfo("draining: no new connections, {} requests in progress",
          totals_.requests.load(std::memory_order_relaxed));
  // Those that wait in the kernel are ours to take, if nobody else does.
  for (auto& worker : workers_) worker->Drain(!handed_over);
  listeners_.clear();
  offer_watch_.reset();
  offer_.Close();
  WatchDrain();
}

void Server::WatchDrain() {
  drain_timer_ = loop_->timers().After(kDrainTick, [this] {
    const config::Server& settings = fleet_->config->server;
    const MonoTime passed = loop_->now() - drain_began_;
    const uint32_t requests = totals_.requests.load(std::memory_order_relaxed);
    // Answers that are done may still be on their way to slow clients.
    const bool idle = requests == 0 && std::all_of(workers_.begin(), workers_.end(),
                                                   [](const auto& worker) { return worker->busy() == 0; });
    if (idle || passed >= ToMicros(settings.drain_stream_timeout)) {
      if (!idle) LogWarn("drain: {} requests are cut after {}", requests,
                         absl::FormatDuration(settings.drain_stream_timeout));
      loop_->Stop();
      return;
    }
    if (loop_->now() - drain_told_ >= kTellEvery) {
      drain_told_ = loop_->now();
      LogInfo("draining: {} requests in progress, {} client connections", requests,
              totals_.connections.load(std::memory_order_relaxed));
    }
    if (!whole_ended_ && passed >= ToMicros(settings.drain_timeout)) {
      whole_ended_ = true;
      for (auto& worker : workers_) worker->EndWhole();
    }
    WatchDrain();
  });
}

}  // namespace penstock
