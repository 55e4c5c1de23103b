#include <algorithm>
#include <array>
#include <string>

#include <fmt/format.h>

#include "proxy/admin/backend_view.h"
#include "proxy/admin/families.h"
#include "proxy/backends/health.h"

namespace penstock {
namespace {

using Cells = BackendState::WorkerCells;

constexpr std::array<uint16_t, 6> kZeroCodes = {200, 429, 500, 502, 503, 504};
constexpr auto kStates = std::to_array<BreakerState>(
    {BreakerState::kClosed, BreakerState::kOpen, BreakerState::kHalfOpen});
constexpr auto kOpenCauses = std::to_array<BreakerCause>(
    {BreakerCause::kConsecutive, BreakerCause::kRate, BreakerCause::kProbeFault,
     BreakerCause::kAdmin});
constexpr auto kHealthStates = std::to_array<Health>(
    {Health::kUnknown, Health::kHealthy, Health::kUnhealthy, Health::kDown});
constexpr auto kReportRungs = std::to_array<lb::Rung>(
    {lb::Rung::kPush, lb::Rung::kPiggyback, lb::Rung::kPoll});

double Load(const std::atomic<uint64_t>& counter) {
  return static_cast<double>(counter.load(std::memory_order_relaxed));
}

// One backend's cells of all workers, summed.
template <typename Get>
double Sum(const BackendState& state, Get&& get) {
  double sum = 0;
  for (uint32_t i = 0; i < kMaxWorkers; ++i) {
    sum += static_cast<double>(get(state.worker(i)).value());
  }
  return sum;
}

// The samples of one backend: everything is labelled with its pool and name.
struct Sampler {
  Families& families;
  const Backend& backend;

  void Add(std::string_view name, double value) const {
    families.Add(name, {{"pool", backend.pool}, {"backend", backend.name}}, value);
  }
  void Add(std::string_view name, std::string_view label, std::string_view text,
           double value) const {
    families.Add(name, {{"pool", backend.pool}, {"backend", backend.name}, {label, text}}, value);
  }
};

void AddTraffic(const BackendView& view, const Sampler& sampler) {
  const BackendState& state = view.state;
  for (size_t code = 0; code < kCodes; ++code) {
    const double count =
        Sum(state, [&](const Cells& cells) -> const Cell& { return cells.answers[code]; });
    const bool other = code == kCountedCodes.size();
    const bool always =
        !other && std::ranges::find(kZeroCodes, kCountedCodes[code]) != kZeroCodes.end();
    if (count == 0 && !always) continue;
    sampler.Add("penstock_backend_requests_total", "code",
                other ? "other" : fmt::format("{}", kCountedCodes[code]), count);
  }
  sampler.Add("penstock_backend_requests_active", state.in_flight());
  for (size_t i = 0; i < kProtocolNames.size(); ++i) {
    sampler.Add("penstock_backend_connections", "protocol", kProtocolNames[i],
                Sum(state, [&](const Cells& cells) -> const Cell& { return cells.connections[i]; }));
  }
  sampler.Add("penstock_backend_streams",
              Sum(state, [](const Cells& cells) -> const Cell& { return cells.streams; }));
  sampler.Add("penstock_backend_streams_refused_total",
              Sum(state, [](const Cells& cells) -> const Cell& { return cells.streams_refused; }));
  sampler.Add("penstock_backend_goaways_total",
              Sum(state, [](const Cells& cells) -> const Cell& { return cells.goaways; }));
  sampler.Add("penstock_backend_http2_errors_total",
              Sum(state, [](const Cells& cells) -> const Cell& { return cells.http2_errors; }));
  for (size_t i = 0; i < kConnectFailureNames.size(); ++i) {
    sampler.Add("penstock_backend_connect_failures_total", "reason", kConnectFailureNames[i],
                Sum(state, [&](const Cells& cells) -> const Cell& {
                  return cells.connect_failures[i];
                }));
  }
  sampler.Add("penstock_backend_busy_total", Load(state.busy_answers));
}

void AddSignals(const config::Pool& pool, const BackendView& view, MonoTime now, const Sampler& sampler) {
  const BackendState& state = view.state;
  sampler.Add("penstock_lb_backend_weight", view.weight);
  sampler.Add("penstock_lb_backend_load", view.load);
  sampler.Add("penstock_lb_backend_sent_since", static_cast<double>(view.sent_since));
  if (view.ttft.seconds >= 0) sampler.Add("penstock_lb_backend_ttft_seconds", view.ttft.seconds);
  if (view.report.known()) {
    sampler.Add("penstock_lb_signal_age_seconds",
                static_cast<double>(now - view.report.made) / kSecond);
  }
  sampler.Add("penstock_lb_signal_rung", static_cast<double>(view.rung));
  sampler.Add("penstock_lb_wrong_model", WrongModel(pool, view.report) ? 1 : 0);
  for (const lb::Rung rung : kReportRungs) {
    sampler.Add("penstock_load_reports_total", "result", Name(rung),
                Load(state.reports_taken[static_cast<size_t>(rung) - 1]));
  }
  sampler.Add("penstock_load_reports_total", "result", "old", Load(state.reports_old));
  sampler.Add("penstock_load_reports_total", "result", "invalid", Load(state.reports_invalid));
}

void AddHealth(const BackendView& view, const Sampler& sampler) {
  const BackendState& state = view.state;
  sampler.Add("penstock_backend_health", state.health() <= Health::kHealthy ? 1 : 0);
  sampler.Add("penstock_backend_drained", state.drained.load(std::memory_order_relaxed) ? 1 : 0);
  for (size_t i = 0; i < kCheckResults; ++i) {
    sampler.Add("penstock_health_checks_total", "result", Name(static_cast<CheckResult>(i)),
                Load(state.checks[i]));
  }
}

void AddBreaker(const BackendView& view, const Sampler& sampler) {
  for (const BreakerState state : kStates) {
    sampler.Add("penstock_breaker_state", "state", Name(state), view.breaker.state == state ? 1 : 0);
  }
  for (const BreakerState from : kStates) {
    for (const BreakerState to : kStates) {
      const bool possible = from != to && !(from == BreakerState::kClosed && to == BreakerState::kHalfOpen);
      if (!possible) continue;
      sampler.families.Add("penstock_breaker_transitions_total",
                           {{"pool", view.backend.pool}, {"backend", view.backend.name},
                            {"from", Name(from)}, {"to", Name(to)}},
                           static_cast<double>(view.state.breaker.transition_count(from, to)));
    }
  }
  sampler.Add("penstock_breaker_rejected_total", "reason", "open",
              Sum(view.state, [](const Cells& cells) -> const Cell& { return cells.rejected_breaker; }));
  sampler.Add("penstock_breaker_rejected_total", "reason", "max_requests",
              Sum(view.state, [](const Cells& cells) -> const Cell& { return cells.rejected_full; }));
}

void AddPoolSums(const PoolState& pool, Families& families) {
  const std::string& name = pool.settings.name;
  for (const Health health : kHealthStates) {
    const auto count = std::ranges::count_if(
        pool.backends, [&](const auto& backend) { return backend->state.health() == health; });
    families.Add("penstock_backends", {{"pool", name}, {"state", Name(health)}},
                 static_cast<double>(count));
  }
  for (const BreakerCause cause : kOpenCauses) {
    double opened = 0;
    for (const auto& backend : pool.backends) {
      opened += static_cast<double>(backend->state.breaker.open_count(cause));
    }
    families.Add("penstock_outlier_ejections_total",
                 {{"pool", name}, {"reason", Name(cause)}, {"enforced", "true"}}, opened);
  }
  double spared = 0;
  for (const auto& backend : pool.backends) {
    spared += static_cast<double>(backend->state.breaker.spared_count());
  }
  families.Add("penstock_outlier_ejections_total",
               {{"pool", name}, {"reason", "max_ejection"}, {"enforced", "false"}}, spared);
  families.Add("penstock_outlier_ejected", {{"pool", name}}, static_cast<double>(pool.Ejected()));
}

}  // namespace

void AddBackends(const Scrape& scrape, Families& families) {
  if (!scrape.fleet) return;
  for (const auto& pool : scrape.fleet->pools) {
    for (size_t i = 0; i < pool->backends.size(); ++i) {
      const BackendView view = LookAt(*pool, i, scrape.now);
      const Sampler sampler{families, view.backend};
      AddTraffic(view, sampler);
      AddSignals(pool->settings, view, scrape.now, sampler);
      AddHealth(view, sampler);
      AddBreaker(view, sampler);
    }
    AddPoolSums(*pool, families);
  }
}

}  // namespace penstock
