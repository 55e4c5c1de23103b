#include "proxy/overload_watch.h"

#include <gtest/gtest.h>

#include "tests/support/manual_loop.h"

namespace penstock {
namespace {

constexpr uint64_t kMiB = 1 << 20;

struct World {
  World() {
    config::Overload settings;
    settings.memory_limit = 1000 * kMiB;
    watch.SetSettings(settings);
  }
  // What the watch thinks of it, a tick later.
  Pressure Use(uint64_t mebibytes) {
    used = mebibytes * kMiB;
    network.Advance(OverloadWatch::kTick);
    return totals.pressure;
  }

  MemoryNetwork network;
  ManualLoop loop{network};
  ProcessTotals totals;
  uint64_t used = 0;
  int emptied = 0, given_back = 0;
  OverloadWatch watch{loop, totals,
                      {.used = [this] { return used; },
                       .limit = [] { return 500 * kMiB; },
                       .empty_caches = [this] { ++emptied; },
                       .give_back = [this] { ++given_back; }}};
};

TEST(OverloadWatch, TellsTheWorkersHowMuchIsLeft) {
  World world;
  EXPECT_EQ(world.Use(840), Pressure::kNone);
  EXPECT_EQ(world.totals.idle_share, 1);
  EXPECT_EQ(world.Use(885), Pressure::kShorten);
  EXPECT_LT(world.totals.idle_share, 0.6);
  EXPECT_EQ(world.Use(960), Pressure::kReject);
  EXPECT_EQ(world.Use(990), Pressure::kStop);
  EXPECT_EQ(world.Use(100), Pressure::kNone);
  EXPECT_EQ(world.totals.idle_share, 1);
  EXPECT_EQ(world.watch.status().changes, 4u);
  EXPECT_EQ(world.watch.status().memory_used, 100 * kMiB);
  EXPECT_EQ(world.watch.status().memory_limit, 1000 * kMiB);
}

TEST(OverloadWatch, EmptiesCachesBeforeItRefusesAndGivesMemoryBackNowAndThen) {
  World world;
  world.Use(900);
  EXPECT_EQ(world.emptied, 0);
  EXPECT_EQ(world.given_back, 1);
  world.Use(930);
  EXPECT_EQ(world.emptied, 1);
  EXPECT_EQ(world.given_back, 1);
  world.network.Advance(2 * OverloadWatch::kRelieveEvery);
  EXPECT_EQ(world.given_back, 3);
  EXPECT_EQ(world.emptied, 3);
  world.Use(100);
  world.network.Advance(2 * OverloadWatch::kRelieveEvery);
  EXPECT_EQ(world.given_back, 3);
}

TEST(OverloadWatch, TakesTheLimitOfTheSystemWhereNoneIsGivenAndNewThresholdsAtOnce) {
  World world;
  EXPECT_EQ(world.Use(480), Pressure::kNone);
  world.watch.SetSettings({});
  EXPECT_EQ(world.totals.pressure, Pressure::kReject);
  config::Overload settings;
  settings.reject_requests = 0.97;
  settings.close_after_answer = settings.shorten_idle = 0.965;
  world.watch.SetSettings(settings);
  EXPECT_EQ(world.Use(472), Pressure::kReject) << "left a little below";
  EXPECT_EQ(world.Use(469), Pressure::kClose);
  EXPECT_EQ(world.Use(460), Pressure::kNone);
}

TEST(OverloadWatch, JudgesNothingWhereNobodyKnowsTheLimit) {
  MemoryNetwork network;
  ManualLoop loop(network);
  ProcessTotals totals;
  OverloadWatch watch(loop, totals,
                      {.used = [] { return kMiB; }, .limit = [] { return uint64_t{0}; },
                       .empty_caches = [] {}, .give_back = [] {}});
  watch.SetSettings({});
  network.Advance(kSecond);
  EXPECT_EQ(totals.pressure, Pressure::kNone);
}

}  // namespace
}  // namespace penstock
