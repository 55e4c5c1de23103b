#include "proxy/backends/control.h"

#include <algorithm>
#include <unordered_map>
#include <utility>

#include "proxy/backends/health.h"
#include "proxy/backends/load_watch.h"
#include "proxy/backends/resolver.h"
#include "proxy/base/log.h"

namespace penstock {
namespace {

constexpr MonoTime kTick = 100 * kMillisecond;
constexpr auto kRelaxed = std::memory_order_relaxed;

bool SameWatch(const config::Pool& a, const config::Pool& b) {
  const config::HealthCheck& x = a.health_check;
  const config::HealthCheck& y = b.health_check;
  const config::LoadReports& p = a.load_reports;
  const config::LoadReports& q = b.load_reports;
  return x.enabled == y.enabled && x.path == y.path && x.interval == y.interval &&
         x.timeout == y.timeout && x.unhealthy_threshold == y.unhealthy_threshold &&
         x.healthy_threshold == y.healthy_threshold && p.push == q.push && p.path == q.path &&
         p.stale == q.stale && p.poll == q.poll &&
         a.connections.protocol == b.connections.protocol;
}

// Everything that is watched about one backend.
class BackendWatch {
 public:
  BackendWatch(const WatchSeams& seams, std::shared_ptr<Backend> backend,
               const config::Pool& settings)
      : backend_(std::move(backend)), settings_(settings), seams_(seams),
        health_(seams, *backend_, settings_.health_check, settings_.connections.protocol),
        load_(seams, *backend_, settings_.load_reports, [this] { health_.CheckNow(); },
              settings_.connections.protocol),
        resolver_(seams, *backend_, [this] { OnAddress(); }),
        logged_(backend_->state.breaker.recorded()) {
    if (!settings_.health_check.enabled) backend_->state.SetHealth(Health::kUnknown, seams_.now());
    resolver_.Start();
  }

  // What happened until now is told by this one, and by none that comes after it.
  ~BackendWatch() { LogTransitions(); }

  bool Watches(const config::Pool& settings) const { return SameWatch(settings_, settings); }

  void Tick() {
    BackendState& state = backend_->state;
    if (state.check_wanted.exchange(false, kRelaxed)) health_.CheckNow();
    const Health health = state.health();
    if (health == Health::kHealthy && last_health_ != health) load_.ConnectNow();
    last_health_ = health;
    load_.Tick();
    state.breaker.Tick(seams_.now());
    LogTransitions();
  }

  void TellModel(const config::Pool& pool) {
    LoadReport report;
    const bool wrong = backend_->state.ReadReport(report) && WrongModel(pool, report);
    if (wrong == std::exchange(wrong_model_, wrong) || !wrong) return;
    LogWarn("backend {}/{} at {}: serves the model \"{}\", which its pool does not list", backend_->pool,
            backend_->name, backend_->authority, report.model);
  }

 private:
  void OnAddress() {
    health_.Restart();
    load_.Restart();
  }

  // Workers do not log; what they did to the breaker is told from here.
  void LogTransitions() {
    const uint64_t count = backend_->state.breaker.recorded();
    if (count == logged_) return;
    const auto transitions = backend_->state.breaker.transitions();
    const size_t fresh = std::min<size_t>(count - logged_, transitions.size());
    logged_ = count;
    for (size_t i = transitions.size() - fresh; i < transitions.size(); ++i) {
      const auto& transition = transitions[i];
      const auto level =
          transition.to == BreakerState::kOpen ? LogLevel::kWarn : LogLevel::kInfo;
      LogLine(level, fmt::format("backend {}/{} at {}: breaker {} (was {}): {}", backend_->pool,
                                 backend_->name, backend_->authority, Name(transition.to),
                                 Name(transition.from), Name(transition.cause)));
    }
  }

  const std::shared_ptr<Backend> backend_;
  const config::Pool settings_;
  const WatchSeams seams_;
  HealthChecker health_;
  LoadWatch load_;
  Resolver resolver_;
  Health last_health_ = Health::kUnknown;
  bool wrong_model_ = false;
  uint64_t logged_;                    // Of the breaker's transitions.
};

// The weights that all reporting backends agree on; 0: not every one of them tells.
uint64_t CommonWeights(const PoolState& pool) {
  uint64_t common = 0;
  for (const auto& backend : pool.backends) {
    const Health health = backend->state.health();
    if (health == Health::kUnhealthy || health == Health::kDown) continue;
    LoadReport report;
    if (!backend->state.ReadReport(report) || !report.known()) continue;
    if (report.state != EngineState::kReady && report.state != EngineState::kUnknown) continue;
    if (report.weights == 0) return 0;
    if (common != 0 && common != report.weights) return kWeightsDisagree;
    common = report.weights;
  }
  return common;
}

class ControlImpl final : public Control {
 public:
  ControlImpl(Loop& loop, uint64_t seed)
      : random_(seed),
        seams_{loop.timers(), loop.deadlines(), loop.dialer(), random_,
               [&loop](std::string_view host, uint16_t port, WatchSeams::ResolveDone done) {
                 loop.Resolve(host, port, std::move(done));
               }} {
    ScheduleTick();
  }

  void SetFleet(std::shared_ptr<const Fleet> fleet) override {
    std::unordered_map<const Backend*, std::unique_ptr<BackendWatch>> kept;
    for (const auto& pool : fleet->pools) {
      for (const auto& backend : pool->backends) {
        std::unique_ptr<BackendWatch>& watch = kept[backend.get()];
        if (auto known = watches_.find(backend.get()); known != watches_.end()) {
          if (known->second->Watches(pool->settings)) watch = std::move(known->second);
        }
        if (!watch) watch = std::make_unique<BackendWatch>(seams_, backend, pool->settings);
      }
    }
    watches_ = std::move(kept);
    fleet_ = std::move(fleet);
  }

 private:
  void ScheduleTick() {
    tick_ = seams_.timers.After(kTick, [this] {
      for (auto& [backend, watch] : watches_) watch->Tick();
      if (fleet_) {
        for (const auto& pool : fleet_->pools) {
          pool->weights.store(CommonWeights(*pool), kRelaxed);
          for (const auto& backend : pool->backends) {
            watches_.at(backend.get())->TellModel(pool->settings);
          }
        }
      }
      ScheduleTick();
    });
  }

  Random random_;
  const WatchSeams seams_;
  std::shared_ptr<const Fleet> fleet_;
  std::unordered_map<const Backend*, std::unique_ptr<BackendWatch>> watches_;
  TimerQueue::Timer tick_;
};

}  // namespace

std::unique_ptr<Control> Control::Create(Loop& loop, uint64_t seed) {
  return std::make_unique<ControlImpl>(loop, seed);
}

}  // namespace penstock
