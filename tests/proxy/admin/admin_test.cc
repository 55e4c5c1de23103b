#include "proxy/admin/admin.h"

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "proxy/http/client.h"
#include "tests/proxy/backends/worlds.h"
#include "tests/support/manual_loop.h"

namespace penstock {
namespace {

using Json = nlohmann::json;

// The admin listener of a small fleet, asked over HTTP in memory.
struct World {
  World() : loop(network), fleet(FleetOf({}, 2)) {
    AdminSources sources;
    sources.fleet = [this] { return fleet; };
    sources.workers = [this] { return std::vector<const WorkerMetrics*>{&worker}; };
    sources.caches = [this] { return caches; };
    sources.not_ready = [this] { return not_ready; };
    sources.config_text = [] { return std::string("pools: []\n"); };
    sources.policy = [] { return PolicyStatus{.hash = 1, .generation = 2}; };
    sources.decisions = [this](std::string_view id, AdminSources::Jsons done) {
      std::vector<std::string> found;
      for (const auto& [request, json] : decisions) {
        if (id.empty() || request == id) found.push_back(json);
      }
      loop.Post([done = std::move(done), found]() mutable { done(found); });
    };
    sources.last_score = [](lb::BackendId id) { return id == 1 ? R"({"score":0.7})" : ""; };
    caches.push_back(std::make_shared<ResultCache>(ResultCacheSettings{.name = "answers"}));
    auto listening = Admin::Listen(loop, *Address::Parse("127.0.0.1:9901"), std::move(sources));
    EXPECT_TRUE(listening.ok()) << listening.status();
    admin = *std::move(listening);
  }

  FetchResult Ask(std::string method, std::string target, HeaderList headers = {}) {
    std::optional<FetchResult> result;
    FetchOptions options;
    options.method = std::move(method);
    options.target = std::move(target);
    options.authority = authority;
    options.headers = std::move(headers);
    const auto fetch = Fetch::Start(loop.dialer(), loop.deadlines(), admin->address(),
                                    std::move(options), [&](absl::StatusOr<FetchResult> answer) {
      EXPECT_TRUE(answer.ok()) << answer.status();
      result = answer.ok() ? *std::move(answer) : FetchResult{};
    });
    network.RunUntilIdle();
    EXPECT_TRUE(result.has_value()) << "no answer";
    return result.value_or(FetchResult{});
  }
  FetchResult Get(std::string target) { return Ask("GET", std::move(target)); }
  FetchResult Post(std::string target) { return Ask("POST", std::move(target)); }
  BackendState& state(size_t index) { return fleet->pools[0]->backends[index]->state; }

  MemoryNetwork network;
  ManualLoop loop;
  std::shared_ptr<const Fleet> fleet;
  WorkerMetrics worker;
  std::vector<std::shared_ptr<ResultCache>> caches;
  std::vector<std::pair<std::string, std::string>> decisions;
  std::string not_ready;
  std::string authority = "127.0.0.1:9901";
  std::unique_ptr<Admin> admin;
};

TEST(Admin, TheFirstPageListsTheOthersAndEachIsThere) {
  World world;
  const FetchResult index = world.Get("/");
  EXPECT_EQ(index.status, 200);
  std::istringstream links(index.body);
  int count = 0;
  for (std::string link; std::getline(links, link); ++count) {
    EXPECT_EQ(world.Get(link).status, 200) << link;
  }
  EXPECT_EQ(count, 7);
  EXPECT_NE(world.Ask("GET", "/", {{"accept", "text/html"}}).body.find("href=\"/backends\""),
            std::string::npos);
}

TEST(Admin, TellsAWebPageUnderANameOfItsOwnNothing) {
  World world;
  const auto ask = [&world](std::string path, std::string host) {
    world.authority = std::move(host);
    return world.Get(std::move(path)).status;
  };
  for (const char* path : {"/", "/config", "/backends", "/decisions", "/cache", "/nothing"}) {
    for (const char* host : {"evil.example:9901", "evil.example", "127.0.0.1.evil.example:9901",
                             "localhost.evil.example", "evil", "1.2.3.4.5"}) {
      EXPECT_EQ(ask(path, host), 421) << path << " " << host;
    }
    for (const char* host : {"127.0.0.1@evil:1", "[::1].evil:9901", "[", ":", "[::1"}) {
      EXPECT_EQ(ask(path, host), 400) << path << " " << host;  // These are no Host at all.
    }
  }
  world.authority = "evil.example:9901";
  EXPECT_EQ(world.Post("/cache/flush").status, 421);
  for (const char* host : {"127.0.0.1:9901", "10.0.0.7", "[::1]:9901", "[::1]", "localhost:9901", "LocalHost"}) {
    EXPECT_EQ(ask("/config", host), 200) << host;
  }
  for (const char* path : {"/metrics", "/livez", "/readyz"}) {
    EXPECT_EQ(ask(path, "penstock.monitoring.svc:9901"), 200) << path;
  }
}

TEST(Admin, MetricsComeAsPrometheusText) {
  World world;
  const FetchResult page = world.Get("/metrics");
  EXPECT_EQ(page.status, 200);
  EXPECT_NE(page.body.find("\npenstock_backend_health{pool=\"main\",backend=\"b0\"} 1\n"),
            std::string::npos);
}

TEST(Admin, ReadinessSaysWhyNot) {
  World world;
  EXPECT_EQ(world.Get("/readyz").status, 200);
  world.not_ready = "draining";
  EXPECT_EQ(world.Get("/readyz").status, 503);
  EXPECT_EQ(world.Get("/readyz").body, "draining\n");
  EXPECT_EQ(world.Get("/livez").status, 200);
}

TEST(Admin, BackendsTellHealthBreakerLoadAndScore) {
  World world;
  const MonoTime now = world.loop.now();
  LoadReport report;
  report.rung = lb::Rung::kPush;
  report.arrived = now;
  report.made = now - 150 * kMillisecond;
  report.running = 3;
  report.waiting = 1;
  report.state = EngineState::kReady;
  std::copy_n("m\xff", 3, report.model);  // No UTF-8: the page must come all the same.
  world.state(0).PublishReport(report, kSecond, true);
  world.state(0).SetHealth(Health::kHealthy, now - 9 * kSecond);
  const BreakerSettings settings(config::CircuitBreaker{});
  world.state(1).breaker.Open(settings, BreakerCause::kConsecutive, now, 2048);
  const FetchResult page = world.Get("/backends");
  ASSERT_EQ(page.status, 200);
  const Json pool = Json::parse(page.body)["pools"][0];
  const Json& first = pool["backends"][0];
  EXPECT_EQ(first["health"]["state"], "healthy");
  EXPECT_EQ(first["health"]["for_s"], 9);
  EXPECT_EQ(first["rung"], "push");
  EXPECT_EQ(first["load"], 4);
  EXPECT_EQ(first["report"]["age_s"], 0.15);
  EXPECT_EQ(first["report"]["kv_blocks_used"], nullptr) << "unknown is not zero";
  EXPECT_EQ(first["last_score"]["score"], 0.7);
  const Json& second = pool["backends"][1];
  EXPECT_EQ(second["last_score"], nullptr);
  EXPECT_EQ(second["report"], nullptr);
  EXPECT_EQ(second["breaker"]["state"], "open");
  EXPECT_EQ(second["breaker"]["transitions"][0]["cause"], "consecutive_faults");
  EXPECT_NEAR(second["breaker"]["for_s"].get<double>(), 1, 0.01);
  EXPECT_EQ(pool["ejected"], 1);
}

TEST(Admin, ADecisionIsFoundByItsRequest) {
  World world;
  world.decisions = {{"r1", R"({"chosen":"b0"})"}, {"r2", R"({"chosen":"b1"})"},
                     {"a b", R"({"chosen":"b2"})"}};
  EXPECT_EQ(Json::parse(world.Get("/decisions/r2").body)["decisions"][0]["chosen"], "b1");
  EXPECT_EQ(Json::parse(world.Get("/decisions/a%20b").body)["decisions"][0]["chosen"], "b2");
  EXPECT_EQ(Json::parse(world.Get("/decisions").body)["decisions"].size(), 3u);
  EXPECT_EQ(world.Get("/decisions/r9").status, 404);
}

TEST(Admin, AnOperatorDrainsAndUndrains) {
  World world;
  EXPECT_EQ(world.Post("/backends/main/b0/drain").status, 200);
  EXPECT_TRUE(world.state(0).drained);
  EXPECT_EQ(world.Post("/backends/main/b0/undrain").status, 200);
  EXPECT_FALSE(world.state(0).drained);
}

TEST(Admin, AnOperatorHoldsABreakerOpenOrClosedOrLetsItGo) {
  World world;
  const auto force = [&] { return world.state(1).breaker.view().force; };
  EXPECT_EQ(world.Post("/backends/main/b1/breaker/open").status, 200);
  EXPECT_EQ(force(), BreakerForce::kOpen);
  EXPECT_EQ(world.Post("/backends/main/b1/breaker/close").status, 200);
  EXPECT_EQ(force(), BreakerForce::kClosed);
  EXPECT_EQ(world.Post("/backends/main/b1/breaker/auto").status, 200);
  EXPECT_EQ(force(), BreakerForce::kAuto);
}

TEST(Admin, AnOperatorFlushesOneCacheOrAll) {
  World world;
  EXPECT_EQ(world.Post("/cache/flush").status, 200);
  EXPECT_EQ(world.Post("/cache/flush?cache=answers").status, 200);
  EXPECT_EQ(world.Post("/cache/flush?cache=other").status, 404);
}

TEST(Admin, AChangeIsNotTakenFromAWebPage) {
  World world;
  EXPECT_EQ(world.Ask("POST", "/backends/main/b0/drain", {{"origin", "http://evil.example"}}).status,
            403);
  EXPECT_FALSE(world.state(0).drained);
}

TEST(Admin, AGetChangesNothing) {
  World world;
  EXPECT_EQ(world.Get("/backends/main/b0/drain").status, 405);
  EXPECT_EQ(world.Ask("DELETE", "/backends/main/b0/drain").status, 405);
  EXPECT_FALSE(world.state(0).drained);
}

TEST(Admin, WhatIsNotThereIsSaidClearly) {
  World world;
  EXPECT_EQ(world.Post("/backends/main/nobody/drain").status, 404);
  EXPECT_EQ(world.Post("/backends/other/b0/drain").status, 404);
  EXPECT_EQ(world.Post("/backends/main/b0/explode").status, 404);
  EXPECT_EQ(world.Post("/backends").status, 404);
  EXPECT_EQ(world.Get("/decisions/").status, 404);
  EXPECT_NE(world.Get("/nope").body.find("/metrics"), std::string::npos);
}

// An answer that notes what was sent, for what needs no listener.
class NotedAnswer final : public HttpAnswer {
 public:
  explicit NotedAnswer(int& status) : status_(status) {}
  void Send(int status, std::string_view, std::string_view, const HeaderList&) override {
    status_ = status;
  }
  void Begin(int status, std::string_view, const HeaderList&) override { status_ = status; }
  void Write(std::string_view) override {}
  void End(const HeaderList&) override {}
  void Cut() override {}
  size_t buffered() const override { return 0; }
  bool client_gone() const override { return false; }
  void OnClientGone(absl::AnyInvocable<void()>) override {}

 private:
  int& status_;
};

TEST(Admin, AChangeIsTakenFromLoopbackOnly) {
  const auto fleet = FleetOf({}, 1);
  AdminSources sources;
  sources.fleet = [&] { return fleet; };
  AdminPages pages(std::move(sources), {.now = [] { return kSecond; }});
  HttpRequest request;
  request.method = "POST";
  request.path = "/backends/main/b0/drain";
  int status = 0;
  pages.Handle(request, std::make_unique<NotedAnswer>(status));
  EXPECT_EQ(status, 403);
  request.from_loopback = true;
  pages.Handle(request, std::make_unique<NotedAnswer>(status));
  EXPECT_EQ(status, 200);
}

TEST(Admin, WithoutSourcesEveryPageStillAnswers) {
  AdminPages pages({}, {.now = [] { return kSecond; },
                        .wall_now = [] { return absl::UnixEpoch(); },
                        .offload = [](Loop::Task work, Loop::Task done) { work(), done(); }});
  for (const char* path : {"/", "/metrics", "/livez", "/readyz", "/backends", "/cache", "/config",
                           "/decisions", "/decisions/x"}) {
    HttpRequest request;
    request.method = "GET";
    request.path = path;
    int status = 0;
    pages.Handle(request, std::make_unique<NotedAnswer>(status));
    EXPECT_NE(status, 0) << path;
  }
}

}  // namespace
}  // namespace penstock
