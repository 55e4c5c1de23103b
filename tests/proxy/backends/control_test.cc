#include "proxy/backends/control.h"

#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "proxy/backends/load_watch.h"
#include "proxy/backends/pool_table.h"
#include "tests/proxy/backends/fake_engine.h"
#include "tests/proxy/backends/worlds.h"
#include "tests/support/manual_loop.h"

namespace penstock {
namespace {

// Engines, their control thread and one worker's view, in one told time.
struct World {
  explicit World(size_t count, const config::Pool& settings = {})
      : control_loop(network), engine_loop(network), fleet(FleetOf(settings, count)) {
    for (const auto& backend : pool().backends) {
      if (backend->address().text.empty()) continue;  // A name: the test says where it is.
      engines.push_back(std::make_unique<FakeEngine>(network, engine_loop, backend->authority));
      engines.back()->Start();
    }
    Watch();
  }
  void Watch() {
    control = Control::Create(control_loop, 7);
    control->SetFleet(fleet);
    table = std::make_unique<PoolTable>(fleet->pools[0], 0);
  }

  const PoolState& pool() const { return *fleet->pools[0]; }
  BackendState& state(size_t index) { return pool().backends[index]->state; }
  // Time passes; the engines speak every 100 ms, as real ones do under load.
  void Pass(MonoTime time) {
    const MonoTime end = network.now() + time;
    while (network.now() < end) {
      network.Advance(std::min(100 * kMillisecond, end - network.now()));
      for (size_t i = 0; i < engines.size(); ++i) {
        if (!silent[i]) engines[i]->Say(running[i]);
      }
      network.RunUntilIdle();
    }
  }
  lb::Rung RungOf(size_t index) {
    LoadReport report;
    EXPECT_TRUE(state(index).ReadReport(report));
    return RungAt(report, network.now(), 1500 * kMillisecond, kPollDefault);
  }
  bool Used(size_t index) {
    for (const auto& candidate : table->Usable(network.now(), {}).candidates) {
      if (candidate.id == pool().backends[index]->id) return true;
    }
    return false;
  }

  MemoryNetwork network;
  ManualLoop control_loop;
  ManualLoop engine_loop;
  std::shared_ptr<const Fleet> fleet;
  std::vector<std::unique_ptr<FakeEngine>> engines;
  std::unique_ptr<Control> control;
  std::unique_ptr<PoolTable> table;
  bool silent[8] = {};
  int running[8] = {};
};

config::Pool Without(bool push) {
  config::Pool settings;
  settings.load_reports.push = push;
  return settings;
}

TEST(Control, FindsEnginesHealthyAndHearsTheirLoad) {
  World world(3);
  world.running[1] = 5;
  world.Pass(300 * kMillisecond);
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(world.state(i).health(), Health::kHealthy);
    EXPECT_EQ(world.RungOf(i), lb::Rung::kPush);
  }
  LoadReport report;
  ASSERT_TRUE(world.state(1).ReadReport(report));
  EXPECT_EQ(report.running, 5);
  EXPECT_NE(world.pool().weights.load(), 0u);
}

TEST(Control, AKilledEngineIsOutBeforeASecondHasPassed) {
  World world(3);
  world.Pass(kSecond);
  ASSERT_TRUE(world.Used(0));
  world.engines[0]->Kill();
  world.silent[0] = true;
  world.Pass(200 * kMillisecond);
  EXPECT_EQ(world.state(0).health(), Health::kDown);
  EXPECT_FALSE(world.Used(0));
  EXPECT_TRUE(world.Used(1));
}

TEST(Control, AKilledEngineThatSpokeToNobodyIsOutAfterARequestMetTheFault) {
  World world(3, Without(false));
  world.Pass(kSecond);
  world.engines[0]->Kill();
  world.Pass(20 * kMillisecond);
  ASSERT_TRUE(world.Used(0));
  Attempt attempt;
  ASSERT_NE(world.table->Begin(attempt, world.pool().backends[0]->id, true, world.network.now()),
            nullptr);
  world.table->End(attempt, Outcome::kFault, world.network.now());
  world.silent[0] = true;
  world.Pass(300 * kMillisecond);
  EXPECT_EQ(world.state(0).health(), Health::kDown);
}

TEST(Control, ARestartedEngineTakesTrafficAgain) {
  World world(3);
  world.Pass(kSecond);
  world.engines[0]->Kill();
  world.silent[0] = true;
  world.Pass(10 * kSecond);
  ASSERT_FALSE(world.Used(0));
  world.engines[0]->Start();
  world.silent[0] = false;
  world.Pass(6 * kSecond);
  EXPECT_TRUE(world.Used(0));
  EXPECT_EQ(world.RungOf(0), lb::Rung::kPush) << "a new epoch that counts from 1";
}

TEST(Control, AStoppedEngineIsASuspectOnceStaleAndUnhealthySoonAfter) {
  World world(3);
  world.Pass(kSecond);
  world.engines[0]->Stop(true);
  world.silent[0] = true;
  world.Pass(1700 * kMillisecond);
  EXPECT_EQ(world.RungOf(0), lb::Rung::kOwn);
  EXPECT_TRUE(world.state(0).suspect);
  EXPECT_FALSE(world.Used(0)) << "others are there";
  world.Pass(5 * kSecond);
  EXPECT_EQ(world.state(0).health(), Health::kUnhealthy);
  EXPECT_GE(world.state(0).checks[2].load(), 3u) << "timeouts are counted as such";
}

TEST(Control, AStoppedEngineThatGoesOnIsUsedAgain) {
  World world(3);
  world.Pass(kSecond);
  world.engines[0]->Stop(true);
  world.silent[0] = true;
  world.Pass(20 * kSecond);
  ASSERT_FALSE(world.Used(0));
  world.engines[0]->Stop(false);
  world.silent[0] = false;
  world.Pass(4 * kSecond);
  EXPECT_EQ(world.state(0).health(), Health::kHealthy);
  EXPECT_TRUE(world.Used(0));
  world.Pass(5 * kSecond);
  EXPECT_EQ(world.RungOf(0), lb::Rung::kPush);
}

TEST(Control, ThreeBadAnswersMakeABackendUnhealthyAndTwoGoodOnesHealthy) {
  World world(3);
  world.Pass(kSecond);
  world.engines[0]->health_status = 503;
  const int before = world.engines[0]->checks;
  while (world.state(0).health() == Health::kHealthy && world.engines[0]->checks < before + 9) {
    world.Pass(100 * kMillisecond);
  }
  EXPECT_EQ(world.engines[0]->checks - before, 3);
  world.engines[0]->health_status = 200;
  const int bad = world.engines[0]->checks;
  while (world.state(0).health() != Health::kHealthy && world.engines[0]->checks < bad + 9) {
    world.Pass(100 * kMillisecond);
  }
  EXPECT_EQ(world.engines[0]->checks - bad, 2);
}

TEST(Control, AnEngineThatIsStillLoadingIsNotUsed) {
  config::Pool settings;
  World world(2, settings);
  world.engines[0]->health_status = 503;
  world.Pass(300 * kMillisecond);
  EXPECT_EQ(world.state(0).health(), Health::kUnhealthy) << "the first check decides";
  EXPECT_FALSE(world.Used(0));
}

TEST(Control, AnEngineWithoutAPushIsPolled) {
  World world(1);
  world.engines[0]->EndStreams();
  world.engines[0]->has_watch = false;
  world.Watch();
  world.running[0] = 3;
  world.Pass(4 * kSecond);
  EXPECT_GE(world.engines[0]->polls, 3);
  EXPECT_EQ(world.RungOf(0), lb::Rung::kPoll);
  EXPECT_FALSE(world.state(0).suspect);
}

TEST(Control, AnEngineWithoutLoadIsLeftAloneAndUsed) {
  World world(1);
  world.engines[0]->EndStreams();
  world.engines[0]->has_load = false;
  world.Watch();
  world.Pass(20 * kSecond);
  EXPECT_EQ(world.RungOf(0), lb::Rung::kOwn);
  EXPECT_LE(world.engines[0]->polls, 1);
  EXPECT_TRUE(world.Used(0));
  EXPECT_FALSE(world.state(0).suspect);
}

TEST(Control, AStreamThatEndsIsReconnectedAtOnce) {
  World world(1);
  world.Pass(2 * kSecond);
  EXPECT_EQ(world.engines[0]->watches, 1);
  world.engines[0]->EndStreams();
  world.Pass(200 * kMillisecond);
  EXPECT_EQ(world.engines[0]->watches, 2);
  EXPECT_FALSE(world.state(0).suspect) << "the check passed";
}

TEST(Control, StreamsThatDoNotLastAreTriedEverMoreSlowly) {
  World world(1);
  for (int i = 0; i < 600; ++i) {
    world.engines[0]->SayRaw("nonsense\n");
    world.network.ResetAllTo("127.0.0.1:9001");
    world.network.Advance(100 * kMillisecond);
  }
  EXPECT_LE(world.engines[0]->watches, 30) << "in a minute";
}

TEST(Control, ReportsThatAreRefusedAreCountedAndChangeNothing) {
  World world(1);
  world.running[0] = 4;
  world.Pass(kSecond);
  const uint64_t before = world.state(0).reports_invalid;
  world.engines[0]->SayRaw("{\"running\":-1,\"waiting\":0}\n{\"running\":1e99}\nrubbish\n\n");
  world.engines[0]->SayRaw(std::string(100'000, 'x') + "\n");
  world.network.RunUntilIdle();
  EXPECT_EQ(world.state(0).reports_invalid, before + 4);
  LoadReport report;
  ASSERT_TRUE(world.state(0).ReadReport(report));
  EXPECT_EQ(report.running, 4);
  world.running[0] = 5;
  world.Pass(100 * kMillisecond);
  ASSERT_TRUE(world.state(0).ReadReport(report));
  EXPECT_EQ(report.running, 5) << "the stream goes on after a line that is too long";
}

TEST(Control, ANameIsResolvedFollowedAndKeptWhileTheNameServerFails) {
  config::Pool settings;
  settings.backends.push_back({.name = "n", .address = "engine.local:9001"});
  World world(0, settings);
  world.Pass(kSecond);
  EXPECT_EQ(world.state(0).health(), Health::kDown) << "never resolved";
  for (const char* address : {"10.0.0.1:9001", "10.0.0.2:9001"}) {
    world.engines.push_back(
        std::make_unique<FakeEngine>(world.network, world.engine_loop, address));
    world.engines.back()->Start();
  }
  world.network.names["engine.local"] = {*Address::Parse("10.0.0.1:9001")};
  world.network.Advance(5 * kSecond);
  EXPECT_EQ(world.pool().backends[0]->address().text, "10.0.0.1:9001");
  EXPECT_EQ(world.state(0).health(), Health::kHealthy);
  world.network.names.clear();
  world.network.Advance(60 * kSecond);
  EXPECT_EQ(world.pool().backends[0]->address().text, "10.0.0.1:9001");
  world.network.names["engine.local"] = {*Address::Parse("10.0.0.2:9001")};
  world.network.Advance(40 * kSecond);
  EXPECT_EQ(world.pool().backends[0]->address().text, "10.0.0.2:9001");
  EXPECT_GE(world.engines[1]->watches, 1);
}

TEST(Control, ANameWithoutAddressesOrWithAThousandMovesNobody) {
  config::Pool settings;
  settings.backends.push_back({.name = "n", .address = "engine.local:9001"});
  World world(0, settings);
  world.engines.push_back(std::make_unique<FakeEngine>(world.network, world.engine_loop, "10.0.0.1:9001"));
  world.engines.back()->Start();
  std::vector<Address>& found = world.network.names["engine.local"];
  found = {*Address::Parse("10.0.0.1:9001")};
  world.Pass(5 * kSecond);
  found.clear();
  world.network.Advance(60 * kSecond);
  EXPECT_EQ(world.pool().backends[0]->address().text, "10.0.0.1:9001");
  // One of them is its own: it stays there, whatever their order.
  for (int i = 0; i < 1000; ++i) {
    found.push_back(*Address::Parse("10.1." + std::to_string(i / 250) + "." + std::to_string(1 + i % 250) + ":9001"));
  }
  found.push_back(*Address::Parse("10.0.0.1:9001"));
  world.network.Advance(60 * kSecond);
  EXPECT_EQ(world.pool().backends[0]->address().text, "10.0.0.1:9001");
  EXPECT_EQ(world.state(0).health(), Health::kHealthy);
  found.pop_back();
  world.network.Advance(40 * kSecond);
  EXPECT_EQ(world.pool().backends[0]->address().text, "10.1.0.1:9001");  // The first of them, and no more.
}

TEST(Control, AReloadLeavesUnchangedBackendsUndisturbed) {
  World world(2);
  world.Pass(2 * kSecond);
  config::Pool settings;
  settings.load_balancing.algorithm = "random";
  const auto next = FleetOf(settings, 1, world.fleet.get());
  const int checks = world.engines[1]->checks;
  world.control->SetFleet(next);
  world.Pass(5 * kSecond);
  EXPECT_EQ(world.engines[0]->watches, 1) << "the same stream";
  EXPECT_EQ(world.engines[1]->checks, checks) << "not watched any more";
}

TEST(Control, WeightsThatDisagreeAreToldAsSuch) {
  World world(2);
  world.Pass(500 * kMillisecond);
  EXPECT_NE(world.pool().weights.load(), 0u);
  world.silent[1] = true;
  world.engines[1]->SayRaw(
      "{\"epoch\":1,\"seq\":999,\"running\":1,\"waiting\":0,\"weights\":\"other\"}\n");
  world.Pass(200 * kMillisecond);
  EXPECT_EQ(world.pool().weights.load(), kWeightsDisagree);
}

TEST(LineSplitter, FindsTheSameLinesHoweverTheBytesAreCut) {
  const std::string text = "one\r\n\ntwo\n" + std::string(kLoadLineMax + 1, 'x') + "\nthree\nfour";
  for (uint64_t seed = 1; seed <= 200; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    Random random(seed);
    LineSplitter splitter;
    std::vector<std::string> lines;
    size_t too_long = 0;
    for (size_t at = 0; at < text.size();) {
      const size_t size = 1 + random.Below(random.Below(2) == 0 ? 4 : 9000);
      too_long += splitter.Feed(std::string_view(text).substr(at, size),
                                [&](std::string_view line) { lines.emplace_back(line); });
      at += size;
    }
    ASSERT_EQ(lines, (std::vector<std::string>{"one", "two", "three"}));
    ASSERT_EQ(too_long, 1u);
  }
}

}  // namespace
}  // namespace penstock
