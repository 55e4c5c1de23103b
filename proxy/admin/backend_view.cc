#include "proxy/admin/backend_view.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <string_view>
#include <utility>

#include <nlohmann/json.hpp>

namespace penstock {
namespace {

using Json = nlohmann::ordered_json;

double Seconds(MonoTime time) { return static_cast<double>(time) / kSecond; }

// To the microsecond: enough for people, and no 0.30000001192.
double Round(double value) { return std::round(value * 1e6) / 1e6; }

// A moment of the loop's clock on the wall's.
std::string WallText(MonoTime at, MonoTime now, absl::Time wall_now) {
  return absl::FormatTime("%Y-%m-%dT%H:%M:%E3SZ", wall_now - absl::Microseconds(now - at),
                          absl::UTCTimeZone());
}

struct Moment {
  MonoTime now;
  absl::Time wall;
  std::string Text(MonoTime at) const { return WallText(at, now, wall); }
};

Json HealthJson(const Backend& backend, const Moment& moment) {
  const BackendState& state = backend.state;
  Json json = {{"state", Name(state.health())}};
  if (state.health_since() > 0) {
    json["since"] = moment.Text(state.health_since());
    json["for_s"] = Round(Seconds(moment.now - state.health_since()));
  }
  json["suspect"] = state.suspect.load(std::memory_order_relaxed);
  if (const std::string why = backend.trouble(); !why.empty()) json["cause"] = why;
  return json;
}

Json BreakerJson(const BackendView& view, const Moment& moment) {
  Json json = {{"state", Name(view.breaker.state)}, {"override", Name(view.breaker.force)}};
  if (view.breaker.state == BreakerState::kOpen && view.breaker.force == BreakerForce::kAuto) {
    json["until"] = moment.Text(view.breaker.until);
    json["for_s"] = Round(Seconds(std::max(view.breaker.until - moment.now, MonoTime{0})));
  }
  if (view.breaker.state == BreakerState::kHalfOpen) {
    json["probes"] = view.breaker.probes;
    json["successes"] = view.breaker.successes;
  }
  Json transitions = Json::array();
  for (const Breaker::Transition& transition : view.state.breaker.transitions()) {
    transitions.push_back({{"at", moment.Text(transition.at)},
                           {"from", Name(transition.from)},
                           {"to", Name(transition.to)},
                           {"cause", Name(transition.cause)}});
  }
  json["transitions"] = std::move(transitions);
  return json;
}

Json ReportJson(const BackendView& view, const Moment& moment) {
  const LoadReport& report = view.report;
  if (!report.known()) return nullptr;
  Json json = {{"came_by", Name(report.rung)},
               {"age_s", Round(Seconds(moment.now - report.made))},
               {"fresh", view.rung != lb::Rung::kOwn},
               {"state", Name(report.state)},
               {"model", report.model}};
  const std::pair<std::string_view, float> figures[] = {
      {"running", report.running},
      {"waiting", report.waiting},
      {"waiting_tokens", report.waiting_tokens},
      {"running_tokens", report.running_tokens},
      {"max_running", report.max_running},
      {"kv_blocks_used", report.kv_blocks_used},
      {"kv_blocks_total", report.kv_blocks_total},
      {"prefill_tokens_per_s", report.prefill_tokens_per_s},
      {"step_ms", report.step_ms},
      {"ttft_ms_p50", report.ttft_ms_p50}};
  for (const auto& [name, value] : figures) {
    json[std::string(name)] = value < 0 ? Json(nullptr) : Json(Round(value));
  }
  json["epoch"] = report.epoch;
  json["seq"] = report.seq;
  return json;
}

Json ConnectionsJson(const PoolState& pool, const BackendState& state) {
  static constexpr std::string_view kWords[] = {"auto", "http1", "http2"};
  Json json = {{"protocol", kWords[static_cast<size_t>(pool.settings.connections.protocol)]}};
  const auto sum = [&](auto cell) {
    int64_t total = 0;
    for (uint32_t i = 0; i < kMaxWorkers; ++i) total += cell(state.worker(i)).value();
    return total;
  };
  for (size_t i = 0; i < kProtocolNames.size(); ++i) {
    json[std::string(kProtocolNames[i])] =
        sum([&](const auto& cells) -> const Cell& { return cells.connections[i]; });
  }
  json["streams"] = sum([](const auto& cells) -> const Cell& { return cells.streams; });
  return json;
}

Json BackendJson(const PoolState& pool, size_t index, const Moment& moment) {
  const BackendView view = LookAt(pool, index, moment.now);
  const config::Backend& settings = pool.settings.backends[index];
  const MonoTime oldest = view.state.oldest_wait();
  const MonoTime rest = view.state.rest_until();
  return {{"id", view.backend.id},
          {"name", view.backend.name},
          {"address", view.backend.authority},
          {"resolved", view.backend.address().text},
          {"weight", settings.weight},
          {"weight_now", Round(view.weight)},
          {"health", HealthJson(view.backend, moment)},
          {"breaker", BreakerJson(view, moment)},
          {"drained", view.state.drained.load(std::memory_order_relaxed)},
          {"rests_for_s", Round(Seconds(std::max(rest - moment.now, MonoTime{0})))},
          {"in_flight", view.state.in_flight()},
          {"connections", ConnectionsJson(pool, view.state)},
          {"max_requests", settings.max_requests},
          {"sent_since", view.sent_since},
          {"load", Round(view.load)},
          {"rung", Name(view.rung)},
          {"ttft_s", view.ttft.seconds < 0 ? Json(nullptr) : Json(Round(view.ttft.seconds))},
          {"ttft_idle_s", Round(Seconds(view.ttft.idle))},
          {"oldest_wait_s", Round(oldest == kNever ? 0 : Seconds(moment.now - oldest))},
          {"report", ReportJson(view, moment)}};
}

}  // namespace

BackendView LookAt(const PoolState& pool, size_t index, MonoTime now) {
  const Backend& backend = *pool.backends[index];
  BackendView view{.backend = backend, .state = backend.state};
  backend.state.ReadReport(view.report);
  const config::LoadReports& settings = pool.settings.load_reports;
  view.rung = RungAt(view.report, now, ToMicros(settings.stale), PollInterval(settings));
  if (view.report.known()) view.sent_since = backend.state.sent_since(view.report);
  view.load = backend.state.in_flight();
  if (view.rung != lb::Rung::kOwn) {
    const auto sent_since = static_cast<float>(view.sent_since);
    view.load = TotalAt(view.report, static_cast<float>(view.load), sent_since) + sent_since;
  }
  view.weight = pool.settings.backends[index].weight *
                SlowStartAt(backend.state.ramp_from.load(std::memory_order_relaxed), now,
                            ToMicros(pool.settings.load_balancing.slow_start));
  view.ttft = backend.state.ttft(now);
  view.breaker = backend.state.breaker.view();
  return view;
}

std::string BackendsJson(const Fleet& fleet, MonoTime now, absl::Time wall_now,
                         const std::function<std::string(lb::BackendId)>& last_score) {
  const Moment moment{now, wall_now};
  Json pools = Json::array();
  for (const auto& pool : fleet.pools) {
    Json backends = Json::array();
    for (size_t i = 0; i < pool->backends.size(); ++i) {
      Json backend = BackendJson(*pool, i, moment);
      if (last_score) {
        backend["last_score"] = Json::parse(last_score(pool->backends[i]->id), nullptr, false);
        if (backend["last_score"].is_discarded()) backend["last_score"] = nullptr;
      }
      backends.push_back(std::move(backend));
    }
    pools.push_back({{"name", pool->settings.name},
                     {"algorithm", pool->settings.load_balancing.algorithm},
                     {"ejected", pool->Ejected()},
                     {"weights", pool->weights.load(std::memory_order_relaxed)},
                     {"backends", std::move(backends)}});
  }
  const Json page = {{"time", moment.Text(now)}, {"pools", std::move(pools)}};
  // Engines choose some of these texts: bytes that are no UTF-8 are replaced.
  return page.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace penstock
