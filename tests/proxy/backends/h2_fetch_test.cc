// Health checks and load streams of backends that speak nothing but HTTP/2.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "proxy/backends/health.h"
#include "proxy/backends/load_watch.h"
#include "tests/proxy/backends/h2_pool.h"

namespace penstock {
namespace {

struct WatchWorld : H2World {
  WatchWorld()
      : seams{loop.timers(), loop.deadlines(), loop.dialer(), random,
              [](std::string_view, uint16_t, WatchSeams::ResolveDone) {}} {}
  Random random{1};
  WatchSeams seams;
};

TEST(H2Fetch, AHealthCheckPassesOverHttp2) {
  WatchWorld world;
  HealthChecker checker(world.seams, *world.backend, {}, config::Protocol::kHttp2);
  checker.Restart();
  world.Run();
  ASSERT_EQ(world.ends.size(), 1u);
  EXPECT_TRUE(world.ends[0]->peer.of(1).head.starts_with("GET http /health path=/health"));
  EXPECT_EQ(world.ends[0]->peer.of(1).ends, 1);
  world.ends[0]->Answer(1);
  world.Run();
  EXPECT_EQ(world.backend->state.health(), Health::kHealthy);
  EXPECT_TRUE(world.ends[0]->closed);
}

TEST(H2Fetch, APathOfGrpcsHealthServiceIsCalledByGrpc) {
  struct Case {
    std::string body;
    std::string status;
    CheckResult result;
  };
  const Case cases[] = {
      {std::string("\0\0\0\0\2\x08\1", 7), "0", CheckResult::kPassed},
      {std::string("\0\0\0\0\2\x08\2", 7), "0", CheckResult::kFailed},    // NOT_SERVING.
      {"", "12", CheckResult::kFailed},
      {std::string("\0\0\0\0\2\x08\1", 7), "", CheckResult::kFailed},
  };
  for (const Case& c : cases) {
    WatchWorld world;
    config::HealthCheck settings;
    settings.path = "/grpc.health.v1.Health/Check";
    HealthChecker checker(world.seams, *world.backend, settings, config::Protocol::kHttp2);
    checker.Restart();
    world.Run();
    const H2Peer::Heard& heard = world.ends[0]->peer.of(1);
    EXPECT_TRUE(heard.head.starts_with("POST http /grpc.health.v1.Health/Check"));
    EXPECT_NE(heard.head.find("content-type: application/grpc\nte: trailers\n"), std::string::npos);
    EXPECT_EQ(heard.body, std::string(5, '\0'));
    world.ends[0]->Head(1, 200, "application/grpc");
    if (!c.body.empty()) world.ends[0]->Body(1, c.body);
    const Header trailers[] = {{"grpc-status", c.status}};
    world.ends[0]->End(1, std::span(trailers, c.status.empty() ? 0 : 1));
    world.Run();
    EXPECT_EQ(world.backend->state.checks[static_cast<size_t>(c.result)], 1u) << c.status;
  }
}

TEST(H2Fetch, AStreamThatIsResetIsAFailedCheck) {
  WatchWorld world;
  HealthChecker checker(world.seams, *world.backend, {}, config::Protocol::kHttp2);
  checker.Restart();
  world.Run();
  world.ends[0]->Reset(1, kRefusedStream);
  world.Run();
  EXPECT_EQ(world.backend->state.checks[static_cast<size_t>(CheckResult::kFailed)], 1u);
}

TEST(H2Fetch, ALoadStreamGoesOnPastManyWindows) {
  WatchWorld world;
  LoadWatch watch(world.seams, *world.backend, {}, [] {}, config::Protocol::kHttp2);
  watch.Restart();
  world.Run();
  ASSERT_EQ(world.ends.size(), 1u);
  world.ends[0]->Head(1, 200, "application/x-ndjson");
  const std::string line = R"({"epoch":1,"seq":1,"running":3})" + std::string(500, ' ') + "\n";
  std::string lines;
  for (int i = 0; i < 60; ++i) lines += line;
  for (int i = 0; i < 40; ++i) {
    world.ends[0]->Body(1, lines);
    world.Run();
  }
  EXPECT_TRUE(watch.speaking());
  EXPECT_EQ(world.ends[0]->peer.of(1).resets, 0);
  EXPECT_EQ(world.ends[0]->codec().unsent(1), 0u);
}

}  // namespace
}  // namespace penstock
