#include "proxy/admin/metrics.h"

#include <algorithm>
#include <fstream>
#include <map>
#include <memory>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "proxy/admin/families.h"
#include "proxy/backends/pool_table.h"
#include "tests/proxy/backends/worlds.h"

namespace penstock {
namespace {

constexpr MonoTime kNow = 5000 * kSecond;

// A fleet with two workers, one cache, and a bit of everything on it.
struct World {
  World() : fleet(FleetOf({}, 2)), workers(2) {
    for (auto& worker : workers) {
      worker.Pool("main");
      worker.listeners.Of("public");
    }
    caches.push_back(std::make_shared<ResultCache>(ResultCacheSettings{.name = "answers"}));
  }
  Scrape At(MonoTime now) {
    Scrape scrape;
    scrape.now = now;
    scrape.fleet = fleet;
    for (const auto& worker : workers) scrape.workers.push_back(&worker);
    scrape.caches = caches;
    scrape.version = "1.2.3";
    scrape.revision = "abc";
    scrape.tls.certificates = {{.listener = "public", .name = "a.crt", .not_after = absl::FromUnixSeconds(99)}};
    scrape.policy = {.hash = 0xbeef, .generation = 3, .accepted_at = absl::FromUnixSeconds(77)};
    return scrape;
  }
  BackendState& state(size_t index) { return fleet->pools[0]->backends[index]->state; }

  std::shared_ptr<const Fleet> fleet;
  std::vector<WorkerMetrics> workers;
  std::vector<std::shared_ptr<ResultCache>> caches;
};

// The value of one sample, as text; empty: it is not there.
std::string ValueOf(const std::string& text, const std::string& sample) {
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with(sample + " ")) return line.substr(sample.size() + 1);
  }
  return "";
}

// tls_metrics.cc
TEST(Metrics, TellsOfHandshakesAndCertificatesOfListenersThatSpeakTls) {
  World world;
  world.workers[0].listeners.Of("public").full.Add(2);
  world.workers[1].listeners.Of("public").full.Add();
  world.workers[1].listeners.Of("public").failures[0].Add();
  world.workers[1].listeners.Of("plain");
  Scrape scrape = world.At(kNow);
  scrape.tls.accepted = 3;
  scrape.tls.rejected = 1;
  scrape.tls.last_ok = false;
  const std::string text = RenderMetrics(scrape);
  EXPECT_EQ(ValueOf(text, "penstock_tls_handshakes_total{listener=\"public\",result=\"full\"}"), "3");
  EXPECT_EQ(ValueOf(text, "penstock_tls_handshakes_total{listener=\"public\",result=\"timeout\"}"), "1");
  EXPECT_EQ(ValueOf(text, "penstock_tls_handshakes_total{listener=\"public\",result=\"alert\"}"), "0");
  EXPECT_EQ(text.find("listener=\"plain\""), std::string::npos);
  const std::string one = "{listener=\"public\",pool=\"\",name=\"a.crt\"}";
  EXPECT_EQ(ValueOf(text, "penstock_certificate_expiry_timestamp_seconds" + one), "99");
  EXPECT_EQ(ValueOf(text, "penstock_tls_reloads_total{result=\"rejected\"}"), "1");
  EXPECT_EQ(ValueOf(text, "penstock_tls_last_reload_successful"), "0");
}

TEST(Metrics, SumsTheCellsOfAllWorkers) {
  World world;
  world.workers[0].Pool("main").AddRequest(200, true, 100 * kMillisecond);
  world.workers[1].Pool("main").AddRequest(200, true, 700 * kMillisecond);
  world.workers[1].Pool("main").AddRequest(418, false, kSecond);
  world.workers[0].Connections(ClientProtocol::kHttp1).Add(3);
  world.workers[1].Connections(ClientProtocol::kHttp2).Add(2);
  world.workers[1].AddFlood("resets");
  const std::string text = RenderMetrics(world.At(kNow));
  EXPECT_EQ(ValueOf(text, R"(penstock_http_requests_total{pool="main",code="200",stream="true"})"), "2");
  EXPECT_EQ(ValueOf(text, R"(penstock_http_requests_total{pool="main",code="other",stream="false"})"), "1");
  EXPECT_EQ(ValueOf(text, R"(penstock_http_request_duration_seconds_count{pool="main"})"), "3");
  EXPECT_EQ(ValueOf(text, R"(penstock_http_request_duration_seconds_bucket{pool="main",le="0.5"})"), "1");
  EXPECT_EQ(ValueOf(text, R"(penstock_http_request_duration_seconds_bucket{pool="main",le="0.8"})"), "2");
  EXPECT_EQ(ValueOf(text, R"(penstock_http_request_duration_seconds_bucket{pool="main",le="+Inf"})"), "3");
  EXPECT_EQ(ValueOf(text, R"(penstock_http_request_duration_seconds_sum{pool="main"})"), "1.8");
  EXPECT_EQ(ValueOf(text, R"(penstock_client_connections{protocol="http1"})"), "3");
  EXPECT_EQ(ValueOf(text, R"(penstock_client_connections{protocol="http2"})"), "2");
  EXPECT_EQ(ValueOf(text, R"(penstock_client_h2_floods_total{limit="resets"})"), "1");
}

TEST(Metrics, LabelSetsThatAreKnownStartAtZero) {
  World world;
  const std::string text = RenderMetrics(world.At(kNow));
  for (const char* sample : {
           R"(penstock_http_requests_total{pool="main",code="503",stream="false"})",
           R"(penstock_response_flags_total{pool="main",flag="UH"})",
           R"(penstock_timeouts_total{pool="main",kind="first_token"})",
           R"(penstock_retries_total{pool="main",reason="busy"})",
           R"(penstock_cache_lookups_total{pool="main",result="coalesced"})",
           R"(penstock_backend_requests_total{pool="main",backend="b1",code="502"})",
           R"(penstock_backend_connect_failures_total{pool="main",backend="b0",reason="refused"})",
           R"(penstock_health_checks_total{pool="main",backend="b0",result="timeout"})",
           R"(penstock_breaker_transitions_total{pool="main",backend="b0",from="closed",to="open"})",
           R"(penstock_outlier_ejections_total{pool="main",reason="max_ejection",enforced="false"})",
           R"(penstock_load_reports_total{pool="main",backend="b0",result="invalid"})",
           R"(penstock_cache_evictions_total{cache="answers",reason="ttl"})",
           R"(penstock_config_reloads_total{result="rejected"})"}) {
    EXPECT_EQ(ValueOf(text, sample), "0") << sample;
  }
}

TEST(Metrics, ShowABackendAsTheBalancerSeesIt) {
  World world;
  LoadReport report;
  report.rung = lb::Rung::kPush;
  report.arrived = kNow;
  report.made = kNow - 200 * kMillisecond;
  report.running = 6;
  report.waiting = 1;
  world.state(0).Sent(kNow - kSecond);
  world.state(0).Sent(kNow - 100 * kMillisecond);
  world.state(0).PublishReport(report, kSecond, true);
  world.state(0).ObserveTtft(250 * kMillisecond, kNow, kSecond);
  world.state(1).SetHealth(Health::kDown, kNow);
  world.state(1).breaker.Force(BreakerForce::kOpen, kNow);
  const std::string text = RenderMetrics(world.At(kNow));
  EXPECT_EQ(ValueOf(text, R"(penstock_lb_backend_load{pool="main",backend="b0"})"), "8");
  EXPECT_EQ(ValueOf(text, R"(penstock_lb_backend_sent_since{pool="main",backend="b0"})"), "1");
  EXPECT_EQ(ValueOf(text, R"(penstock_lb_signal_rung{pool="main",backend="b0"})"), "1");
  EXPECT_EQ(ValueOf(text, R"(penstock_lb_signal_rung{pool="main",backend="b1"})"), "4");
  EXPECT_EQ(ValueOf(text, R"(penstock_lb_signal_age_seconds{pool="main",backend="b0"})"), "0.2");
  EXPECT_EQ(ValueOf(text, R"(penstock_lb_signal_age_seconds{pool="main",backend="b1"})"), "");
  EXPECT_EQ(ValueOf(text, R"(penstock_lb_backend_ttft_seconds{pool="main",backend="b0"})"), "0.25");
  EXPECT_EQ(ValueOf(text, R"(penstock_backend_requests_active{pool="main",backend="b0"})"), "2");
  EXPECT_EQ(ValueOf(text, R"(penstock_backend_health{pool="main",backend="b1"})"), "0");
  EXPECT_EQ(ValueOf(text, R"(penstock_backends{pool="main",state="down"})"), "1");
  EXPECT_EQ(ValueOf(text, R"(penstock_breaker_state{pool="main",backend="b1",state="open"})"), "1");
  EXPECT_EQ(ValueOf(text, R"(penstock_breaker_state{pool="main",backend="b1",state="closed"})"), "0");
  EXPECT_EQ(ValueOf(text, R"(penstock_outlier_ejected{pool="main"})"), "1");
}

TEST(Metrics, TellThatAnEngineServesAnotherModelThanItsPool) {
  const std::string kLong(100, 'x');
  struct Case {
    std::vector<config::Model> models;
    std::string said;
    const char* wrong;
  };
  for (const Case& one : {Case{{}, "wren", "0"}, Case{{{"wren", {}}}, "wren", "0"}, Case{{{"wren", {}}}, "", "0"},
                          Case{{{"robin", {}}, {"a", {"wren"}}}, "wren", "0"}, Case{{{"wren", {}}}, "robin", "1"},
                          Case{{{"wren", {}}}, "wre", "1"}, Case{{{kLong, {}}}, kLong, "0"}}) {
    World world;
    config::Pool pool;
    pool.models = one.models;
    world.fleet = FleetOf(pool, 1);
    LoadReport report;
    report.rung = lb::Rung::kPush;
    report.arrived = report.made = kNow;
    std::copy_n(one.said.data(), std::min(one.said.size(), LoadReport::kModelBytes - 1), report.model);
    world.state(0).PublishReport(report, kSecond, true);
    EXPECT_EQ(ValueOf(RenderMetrics(world.At(kNow)), R"(penstock_lb_wrong_model{pool="main",backend="b0"})"), one.wrong)
        << one.said;
  }
}

TEST(Metrics, HaveTheFiguresOfTheProcessAndThePolicy) {
  World world;
  const std::string text = RenderMetrics(world.At(kNow));
  for (const char* name : {"process_cpu_seconds_total", "process_resident_memory_bytes",
                           "process_open_fds", "process_max_fds", "process_threads",
                           "process_start_time_seconds"}) {
    const std::string value = ValueOf(text, name);
    ASSERT_FALSE(value.empty()) << name;
    EXPECT_GE(std::stod(value), 0) << name;
  }
  EXPECT_GT(std::stod(ValueOf(text, "process_start_time_seconds")), 1.6e9);
  EXPECT_EQ(ValueOf(text, R"(penstock_build_info{version="1.2.3",revision="abc"})"), "1");
  EXPECT_EQ(ValueOf(text, R"(penstock_config_info{hash="000000000000beef",generation="3"})"), "1");
  EXPECT_EQ(ValueOf(text, "penstock_config_last_reload_success_timestamp_seconds"), "77");
}

TEST(Metrics, EscapeWhatAPolicyFileMayCallAPool) {
  World world;
  world.workers[0].Pool("a\"b\\c\nd");
  const std::string text = RenderMetrics(world.At(kNow));
  EXPECT_EQ(ValueOf(text, R"(penstock_queue_depth{pool="a\"b\\c\nd"})"), "0");
}

TEST(Metrics, PoolsThatCameAndWentDoNotGrowThePageForEver) {
  World world;
  const auto lines = [&] {
    const std::string text = RenderMetrics(world.At(kNow));
    return std::count(text.begin(), text.end(), '\n');
  };
  for (int i = 0; i < 1000; ++i) {
    for (auto& worker : world.workers) worker.Pool(fmt::format("pool-{}", i)).AddRequest(200, false, 1);
  }
  const auto before = lines();
  for (int i = 0; i < 1000; ++i) world.workers[0].Pool(fmt::format("more-{}", i)).AddRequest(200, false, 1);
  EXPECT_EQ(lines(), before);
  EXPECT_EQ(world.workers[0].Pools().size(), WorkerMetrics::kPoolsMax);
  EXPECT_NE(ValueOf(RenderMetrics(world.At(kNow)),
                    R"(penstock_http_requests_total{pool="other",code="200",stream="false"})"), "");
}

TEST(Metrics, WithoutAFleetThereIsStillAPage) {
  EXPECT_NE(RenderMetrics({}).find("penstock_build_info"), std::string::npos);
}

std::string SourceText(const std::string& path) {
  std::ifstream file(std::string(PENSTOCK_SOURCE_DIR) + "/" + path);
  return std::string(std::istreambuf_iterator<char>(file), {});
}

TEST(MetricsTable, EveryLineHasItsSamplesAndNothingElseIsShown) {
  World world;
  LoadReport report;
  report.rung = lb::Rung::kPush;
  report.arrived = report.made = kNow;
  report.running = 0;
  world.state(0).PublishReport(report, kSecond, true);
  world.state(0).ObserveTtft(kSecond, kNow, kSecond);
  const std::string text = RenderMetrics(world.At(kNow));
  std::set<std::string> shown;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with("# TYPE ")) shown.insert(line.substr(7));
  }
  std::set<std::string> listed;
  for (const MetricInfo& info : AllMetrics()) listed.insert(fmt::format("{} {}", info.name, Name(info.kind)));
  EXPECT_EQ(shown, listed);
}

TEST(MetricsTable, EveryLineHasItsRowInTheDocument) {
  const std::string page = SourceText("docs/metrics.md");
  for (const MetricInfo& info : AllMetrics()) {
    const std::string row =
        fmt::format("| `{}` | {} | {} | {} |\n", info.name, Name(info.kind), info.labels, info.help);
    EXPECT_NE(page.find(row), std::string::npos) << "docs/metrics.md lacks: " << row;
  }
  size_t rows = 0;
  for (size_t at = page.find("\n| `"); at != std::string::npos; at = page.find("\n| `", at + 1)) ++rows;
  EXPECT_EQ(rows, AllMetrics().size() + 1) << "one row more, the engine's; a row too many or too few";
}

TEST(MetricsTable, NamesFollowTheRules) {
  for (const MetricInfo& info : AllMetrics()) {
    EXPECT_TRUE(info.name.starts_with("penstock_") || info.name.starts_with("process_")) << info.name;
    EXPECT_EQ(info.kind == MetricKind::kCounter, info.name.ends_with("_total")) << info.name;
    EXPECT_FALSE(info.help.empty()) << info.name;
    if (info.kind == MetricKind::kHistogram) {
      EXPECT_TRUE(info.name.ends_with("_seconds")) << info.name;
    }
  }
}

}  // namespace
}  // namespace penstock
