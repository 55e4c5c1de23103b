#include "proxy/backends/pool_table.h"

#include <algorithm>
#include <memory>
#include <vector>

#include <gtest/gtest.h>

#include "tests/proxy/backends/worlds.h"

namespace penstock {
namespace {

constexpr MonoTime kStart = 1000 * kSecond;

// One worker at one pool, with its time.
struct World {
  explicit World(size_t backends, const config::Pool& settings = {})
      : pool(PoolOf(backends, settings)), table(pool, 0) {}

  std::vector<lb::BackendId> Ids(std::vector<lb::BackendId> tried = {}) {
    std::vector<lb::BackendId> ids;
    for (const auto& candidate : table.Usable(now, tried).candidates) ids.push_back(candidate.id);
    return ids;
  }
  lb::Candidate Of(size_t index) {
    for (const auto& candidate : table.Usable(now, {}).candidates) {
      if (candidate.id == id(index)) return candidate;
    }
    ADD_FAILURE() << "backend " << index << " is not usable";
    return {};
  }
  lb::BackendId id(size_t index) const { return pool->backends[index]->id; }
  BackendState& state(size_t index) { return pool->backends[index]->state; }
  void Wait(MonoTime time) { now += time; }
  bool Begin(Attempt& attempt, size_t index) {
    table.Usable(now, {});
    return table.Begin(attempt, id(index), true, now) != nullptr;
  }
  void Fault(size_t index) {
    Attempt attempt;
    ASSERT_TRUE(Begin(attempt, index));
    table.End(attempt, Outcome::kFault, now);
  }
  void Push(size_t index, LoadReport report) {
    report.rung = lb::Rung::kPush;
    report.arrived = now;
    if (report.made == 0) report.made = now;
    state(index).PublishReport(report, kSecond, true);
  }

  MonoTime now = kStart;
  std::shared_ptr<const PoolState> pool;
  PoolTable table;
};

LoadReport Carrying(float running, float waiting = 0) {
  LoadReport report;
  report.running = running;
  report.waiting = waiting;
  report.max_running = 16;
  report.state = EngineState::kReady;
  return report;
}

TEST(PoolTable, OffersEveryBackendOfANewPool) {
  World world(3);
  EXPECT_EQ(world.Ids().size(), 3u);
}

TEST(PoolTable, LeavesOutWhatWasTried) {
  World world(3);
  EXPECT_EQ(world.Ids({world.id(1)}), (std::vector{world.id(0), world.id(2)}));
}

TEST(PoolTable, KnowsItsOwnRequestsBeforeTheNextRefresh) {
  World world(1);
  Attempt attempt;
  world.Push(0, Carrying(2));
  world.Ids();
  ASSERT_TRUE(world.Begin(attempt, 0));
  EXPECT_EQ(world.Of(0).inflight, 1);
  EXPECT_EQ(world.Of(0).sent_since, 1);
  world.table.End(attempt, Outcome::kOk, world.now);
  EXPECT_EQ(world.Of(0).inflight, 0);
  EXPECT_EQ(world.Of(0).sent_since, 1);
  world.Wait(PoolTable::kRefresh);
  EXPECT_EQ(world.Of(0).inflight, 0);
  EXPECT_EQ(world.Of(0).sent_since, 1);
}

TEST(PoolTable, SeesTheRequestsOfOtherWorkersAfterARefresh) {
  World world(1);
  PoolTable other(world.pool, 1);
  Attempt attempt;
  other.Usable(world.now, {});
  world.Ids();
  other.Begin(attempt, world.id(0), true, world.now);
  EXPECT_EQ(world.Of(0).inflight, 0);
  world.Wait(PoolTable::kRefresh);
  EXPECT_EQ(world.Of(0).inflight, 1);
  EXPECT_FLOAT_EQ(world.Of(0).oldest_wait_s, 0.01f);
}

TEST(PoolTable, AReportStartsTheCountOfWhatWasSentSince) {
  World world(1);
  Attempt before;
  Attempt after;
  ASSERT_TRUE(world.Begin(before, 0));
  world.Wait(kSecond);
  ASSERT_TRUE(world.Begin(after, 0));
  world.Wait(20 * kMillisecond);
  LoadReport report = Carrying(1);
  report.made = world.now - 500 * kMillisecond;  // Before the second one was sent.
  world.Push(0, report);
  EXPECT_EQ(world.Of(0).rung, lb::Rung::kPush);
  EXPECT_EQ(world.Of(0).reported_total, 1);
  EXPECT_EQ(world.Of(0).sent_since, 1);
}

TEST(PoolTable, AnEngineThatSaysZeroCarriesAtLeastWhatWeHaveThere) {
  World world(1);
  Attempt attempts[3];
  for (auto& attempt : attempts) ASSERT_TRUE(world.Begin(attempt, 0));
  world.Wait(100 * kMillisecond);
  world.Push(0, Carrying(0));
  EXPECT_EQ(world.Of(0).reported_total, 3);
  EXPECT_EQ(world.Of(0).sent_since, 0);
}

TEST(PoolTable, AReportThatIsStaleFallsToOwnFigures) {
  World world(1);
  world.Push(0, Carrying(5));
  EXPECT_EQ(world.Of(0).rung, lb::Rung::kPush);
  world.Wait(1500 * kMillisecond + 1);
  EXPECT_EQ(world.Of(0).rung, lb::Rung::kOwn);
  EXPECT_EQ(world.Of(0).reported_total, 0);
}

TEST(PoolTable, AnEngineThatDrainsTakesNothingNew) {
  World world(2);
  LoadReport report = Carrying(1);
  report.state = EngineState::kDraining;
  world.Push(0, report);
  EXPECT_EQ(world.Ids(), std::vector{world.id(1)});
}

TEST(PoolTable, ABusyBackendRestsForAsLongAsItSaidButAtMostFiveSeconds) {
  World world(2);
  Attempt attempt;
  ASSERT_TRUE(world.Begin(attempt, 0));
  world.table.End(attempt, Outcome::kBusy, world.now, 60 * kSecond);
  EXPECT_EQ(world.Ids(), std::vector{world.id(1)});
  world.Wait(5 * kSecond - 1);
  EXPECT_EQ(world.Ids(), std::vector{world.id(1)});
  world.Wait(1);
  EXPECT_EQ(world.Ids().size(), 2u);
  EXPECT_EQ(world.state(0).breaker.view().state, BreakerState::kClosed);
  EXPECT_LT(world.Of(0).ttft_s, 0);
}

TEST(PoolTable, AFreshReportWithRoomEndsARest) {
  World world(1);
  Attempt attempt;
  ASSERT_TRUE(world.Begin(attempt, 0));
  world.Wait(kMillisecond);
  world.table.End(attempt, Outcome::kBusy, world.now, 5 * kSecond);
  LoadReport old = Carrying(1);
  old.made = world.now - kMillisecond;
  world.Push(0, old);
  world.Wait(PoolTable::kRefresh);
  EXPECT_TRUE(world.Ids().empty());
  world.Push(0, Carrying(16, 4));
  world.Wait(PoolTable::kRefresh);
  EXPECT_TRUE(world.Ids().empty());
  world.Push(0, Carrying(1));
  world.Wait(PoolTable::kRefresh);
  EXPECT_EQ(world.Ids().size(), 1u);
}

TEST(PoolTable, AllBusyIsAShortageThatSaysWhenToTryAgain) {
  World world(2);
  for (size_t i = 0; i < 2; ++i) {
    Attempt attempt;
    ASSERT_TRUE(world.Begin(attempt, i));
    world.table.End(attempt, Outcome::kBusy, world.now, static_cast<MonoTime>(3 - i) * kSecond);
  }
  const auto view = world.table.Usable(world.now, {});
  EXPECT_EQ(view.shortage, PoolTable::Shortage::kBusy);
  EXPECT_EQ(view.retry_at, world.now + 2 * kSecond);
}

TEST(PoolTable, ABackendIsFullAtItsMaxRequests) {
  config::Pool settings;
  settings.backends.push_back({.name = "small", .address = "127.0.0.1:1", .max_requests = 2});
  World world(1, settings);
  Attempt attempts[2];
  for (auto& attempt : attempts) ASSERT_TRUE(world.Begin(attempt, 0));
  EXPECT_EQ(world.table.Usable(world.now, {}).shortage, PoolTable::Shortage::kBusy);
  world.table.End(attempts[0], Outcome::kClientLeft, world.now);
  EXPECT_EQ(world.Ids().size(), 1u);
}

TEST(PoolTable, UnhealthyBackendsAreLeftOutWhileHalfOfThePoolIsWell) {
  World world(4);
  world.state(0).SetHealth(Health::kUnhealthy, world.now);
  world.state(1).SetHealth(Health::kUnhealthy, world.now);
  EXPECT_EQ(world.Ids(), (std::vector{world.id(2), world.id(3)}));
}

TEST(PoolTable, BelowHalfHealthyEverythingThatListensIsUsed) {
  World world(4);
  for (size_t i = 0; i < 2; ++i) world.state(i).SetHealth(Health::kUnhealthy, world.now);
  world.state(2).SetHealth(Health::kDown, world.now);
  EXPECT_TRUE(world.table.Usable(world.now, {}).panic);
  EXPECT_EQ(world.Ids(), (std::vector{world.id(0), world.id(1), world.id(3)}));
}

TEST(PoolTable, ADeadFleetIsSaidAtOnce) {
  World world(3);
  for (size_t i = 0; i < 3; ++i) world.state(i).SetHealth(Health::kDown, world.now);
  EXPECT_EQ(world.table.Usable(world.now, {}).shortage, PoolTable::Shortage::kUnhealthy);
}

TEST(PoolTable, ADrainedBackendIsNotUsedEvenInPanic) {
  World world(2);
  world.state(0).drained = true;
  world.state(1).SetHealth(Health::kUnhealthy, world.now);
  EXPECT_EQ(world.Ids(), std::vector{world.id(1)});
}

TEST(PoolTable, ASuspectIsUsedOnlyWhenNothingElseIsThere) {
  World world(2);
  world.state(0).suspect = true;
  EXPECT_EQ(world.Ids(), std::vector{world.id(1)});
  EXPECT_EQ(world.Ids({world.id(1)}), std::vector{world.id(0)});
}

TEST(PoolTable, FiveFaultsInARowOpenTheBreakerAndAProbeIsTriedLater) {
  World world(3);
  for (int i = 0; i < 5; ++i) world.Fault(0);
  EXPECT_EQ(world.Ids(), (std::vector{world.id(1), world.id(2)}));
  world.Wait(1200 * kMillisecond);
  EXPECT_EQ(world.Ids().size(), 3u);
  Attempt probe;
  ASSERT_TRUE(world.Begin(probe, 0));
  EXPECT_EQ(world.Ids().size(), 2u) << "one probe at a time";
}

TEST(PoolTable, AProbeTakenByAnotherWorkerMeansPickAgain) {
  World world(3);
  for (int i = 0; i < 5; ++i) world.Fault(0);
  world.Wait(1200 * kMillisecond);
  PoolTable other(world.pool, 1);
  Attempt theirs;
  Attempt ours;
  EXPECT_EQ(world.Ids().size(), 3u);
  other.Usable(world.now, {});
  ASSERT_NE(other.Begin(theirs, world.id(0), true, world.now), nullptr);
  EXPECT_EQ(world.table.Begin(ours, world.id(0), true, world.now), nullptr);
  EXPECT_FALSE(ours.begun());
  EXPECT_EQ(world.Ids().size(), 2u);
}

TEST(PoolTable, AProbeThatIsDroppedFreesItsPlace) {
  World world(3);
  for (int i = 0; i < 5; ++i) world.Fault(0);
  world.Wait(1200 * kMillisecond);
  {
    Attempt probe;
    ASSERT_TRUE(world.Begin(probe, 0));
  }
  EXPECT_EQ(world.Ids().size(), 3u);
  EXPECT_EQ(world.table.active(), 0u);
}

TEST(PoolTable, ThreeProbesThatSucceedCloseTheBreakerAndTheBackendRampsUp) {
  config::Pool settings;
  settings.load_balancing.slow_start = absl::Seconds(10);
  World world(3, settings);
  for (int i = 0; i < 5; ++i) world.Fault(0);
  world.Wait(1200 * kMillisecond);
  for (int i = 0; i < 3; ++i) {
    Attempt probe;
    ASSERT_TRUE(world.Begin(probe, 0));
    world.table.End(probe, Outcome::kOk, world.now);
  }
  EXPECT_EQ(world.state(0).breaker.view().state, BreakerState::kClosed);
  world.Wait(5 * kSecond);
  EXPECT_FLOAT_EQ(world.Of(0).slow_start, 0.5f);
  world.Wait(5 * kSecond);
  EXPECT_FLOAT_EQ(world.Of(0).slow_start, 1);
}

// A probe of backend 0 whose answer has begun with `status` and is the client's.
void Probe(World& world, Attempt& attempt, unsigned status = 200) {
  ASSERT_TRUE(world.Begin(attempt, 0));
  world.table.Answered(attempt, status);
  world.table.Promoted(attempt, world.now);
}

TEST(PoolTable, AProbeFreesItsPlaceWhenItsAnswerBegins) {
  World world(3);
  for (int i = 0; i < 5; ++i) world.Fault(0);
  world.Wait(1200 * kMillisecond);
  Attempt probes[4];
  Probe(world, probes[0]);
  EXPECT_EQ(world.Ids().size(), 3u);
  world.table.End(probes[0], Outcome::kOk, world.now);
  EXPECT_EQ(world.state(0).breaker.view().successes, 1u) << "told once";
  Probe(world, probes[1]);
  Probe(world, probes[2]);
  EXPECT_EQ(world.state(0).breaker.view().state, BreakerState::kClosed);
  ASSERT_TRUE(world.Begin(probes[3], 0));
  world.table.End(probes[1], Outcome::kClientLeft, world.now);
  world.table.End(probes[2], Outcome::kFault, world.now);   // Now like any other request's.
  EXPECT_EQ(world.state(0).breaker.view().state, BreakerState::kClosed);
}

TEST(PoolTable, AProbeWhoseAnswerBreaksOffOpensTheBreakerAgain) {
  World world(3);
  for (int i = 0; i < 5; ++i) world.Fault(0);
  world.Wait(1200 * kMillisecond);
  Attempt probe;
  Probe(world, probe);
  world.table.End(probe, Outcome::kFault, world.now);
  EXPECT_EQ(world.state(0).breaker.view().state, BreakerState::kOpen);
}

TEST(PoolTable, AnErrorThatIsPassedOnIsNoGoodProbe) {
  World world(3);
  for (int i = 0; i < 5; ++i) world.Fault(0);
  world.Wait(1200 * kMillisecond);
  Attempt probe;
  Probe(world, probe, 500);
  EXPECT_EQ(world.Ids().size(), 2u);
  EXPECT_EQ(world.state(0).breaker.view().successes, 0u);
}

TEST(PoolTable, AtMostThirtyPercentOfAPoolIsEjected) {
  World world(10);
  for (size_t i = 0; i < 10; ++i) {
    for (int fault = 0; fault < 5; ++fault) world.Fault(i);
  }
  EXPECT_EQ(world.pool->Ejected(), 3u);
  EXPECT_EQ(world.Ids().size(), 7u);
}

TEST(PoolTable, OneOfTwoBackendsMayBeEjected) {
  World world(2);
  for (size_t i = 0; i < 2; ++i) {
    for (int fault = 0; fault < 5; ++fault) world.Fault(i);
  }
  EXPECT_EQ(world.Ids(), std::vector{world.id(1)});
}

TEST(PoolTable, AFaultCountsAsFiveSecondsAndAsksForACheck) {
  World world(1);
  world.Fault(0);
  world.Wait(PoolTable::kRefresh);
  EXPECT_FLOAT_EQ(world.Of(0).ttft_s, 5);
  EXPECT_TRUE(world.state(0).check_wanted);
}

TEST(PoolTable, TheFirstTokenOfAStreamIsLearntFrom) {
  World world(1);
  Attempt attempt;
  ASSERT_TRUE(world.Begin(attempt, 0));
  world.Wait(250 * kMillisecond);
  EXPECT_FLOAT_EQ(world.Of(0).oldest_wait_s, 0.25f);
  world.table.FirstToken(attempt, world.now);
  EXPECT_FLOAT_EQ(world.Of(0).oldest_wait_s, 0);
  EXPECT_LT(world.Of(0).ttft_age_s, 0);
  world.Wait(PoolTable::kRefresh);
  EXPECT_FLOAT_EQ(world.Of(0).ttft_s, 0.25f);
  EXPECT_NEAR(world.Of(0).ttft_age_s, 1.0 * PoolTable::kRefresh / kSecond, 0.002);
  world.Wait(PoolTable::kRefresh / 2);  // The figure is as it was, only older.
  EXPECT_NEAR(world.Of(0).ttft_age_s, 1.5 * PoolTable::kRefresh / kSecond, 0.002);
}

TEST(PoolTable, TheOldestOfSeveralWaitsCounts) {
  World world(1);
  Attempt attempts[3];
  for (auto& attempt : attempts) {
    ASSERT_TRUE(world.Begin(attempt, 0));
    world.Wait(100 * kMillisecond);
  }
  EXPECT_FLOAT_EQ(world.Of(0).oldest_wait_s, 0.3f);
  world.table.FirstToken(attempts[1], world.now);
  EXPECT_FLOAT_EQ(world.Of(0).oldest_wait_s, 0.3f);
  world.table.End(attempts[0], Outcome::kOk, world.now);
  EXPECT_FLOAT_EQ(world.Of(0).oldest_wait_s, 0.1f);
}

TEST(PoolTable, AnIdleFigureDriftsToTheMedianOfThePool) {
  World world(3);
  const MonoTime times[] = {100 * kMillisecond, 100 * kMillisecond, 2 * kSecond};
  for (size_t i = 0; i < 3; ++i) world.state(i).ObserveTtft(times[i], world.now, 10 * kSecond);
  EXPECT_FLOAT_EQ(world.Of(2).ttft_s, 2);
  world.Wait(60 * kSecond);
  EXPECT_NEAR(world.Of(2).ttft_s, 0.1, 0.01);
}

LoadReport FirstTokensAfter(float milliseconds) {
  LoadReport report = Carrying(1);
  report.ttft_ms_p50 = milliseconds;
  return report;
}

TEST(PoolTable, TheEnginesOwnFirstTokensCountWhereWeHaveSeenNone) {
  World world(3);
  world.state(0).ObserveTtft(kSecond, world.now, 10 * kSecond);
  for (const size_t i : {0, 1}) world.Push(i, FirstTokensAfter(250));
  EXPECT_NEAR(world.Of(0).ttft_s, 1, 0.01);
  EXPECT_FLOAT_EQ(world.Of(1).ttft_s, 0.25f);
  EXPECT_EQ(world.Of(2).ttft_s, -1);
  world.Wait(60 * kSecond);                   // Both are stale now: neither fast nor slow.
  world.Ids();
  EXPECT_EQ(world.Of(1).ttft_s, -1);
}

TEST(PoolTable, TheEnginesNewWordReplacesWhatWeSawLongAgo) {
  World world(2);
  world.state(0).ObserveTtft(kSecond, world.now, 10 * kSecond);
  world.Wait(11 * kSecond);
  world.Push(0, FirstTokensAfter(400));
  EXPECT_FLOAT_EQ(world.Of(0).ttft_s, 0.4f);
}

TEST(PoolTable, AWordThatNeverChangesDriftsToTheMedianOfThePool) {
  World world(3);
  for (int second = 0; second < 60; ++second) {
    world.Push(0, FirstTokensAfter(4000));    // Slow once, and not asked since.
    for (const size_t i : {1, 2}) world.Push(i, FirstTokensAfter(100 + static_cast<float>(second % 2)));
    world.Ids();
    if (second == 0) {
      EXPECT_NEAR(world.Of(0).ttft_s, 4, 0.01);
    }
    world.Wait(kSecond);
  }
  EXPECT_LT(world.Of(0).ttft_s, 0.2f);
}

TEST(PoolTable, APiggybackedFieldIsAReportUnlessAFreshPushIsThere) {
  World world(1);
  world.table.Report(*world.pool->backends[0],
                     "TEXT named_metrics.num_requests_waiting=4, named_metrics.kv_cache_usage_perc=0.5",
                     world.now);
  EXPECT_EQ(world.Of(0).rung, lb::Rung::kPiggyback);
  EXPECT_EQ(world.Of(0).reported_total, 4);
  EXPECT_FLOAT_EQ(world.Of(0).kv_used, 0.5f);
  world.Push(0, Carrying(1));
  world.Wait(PoolTable::kRefresh);
  world.table.Report(*world.pool->backends[0], "named_metrics.num_requests_waiting=9", world.now);
  EXPECT_EQ(world.Of(0).rung, lb::Rung::kPush);
  EXPECT_EQ(world.Of(0).reported_total, 1);
  world.table.Report(*world.pool->backends[0], "TEXT rubbish", world.now);
  EXPECT_EQ(world.state(0).reports_invalid, 1u);
}

TEST(Fleet, CarriesABackendOverWithItsStateAndNeverReusesAnId) {
  config::Pool settings;
  const auto first = FleetOf(settings, 2);
  const auto& kept = first->pools[0]->backends[0];
  kept->state.drained = true;
  settings.backends.push_back({.name = "b0", .address = "127.0.0.1:9001", .weight = 3});
  settings.backends.push_back({.name = "b1", .address = "127.0.0.1:9999"});
  const auto second = FleetOf(settings, 2, first.get());
  EXPECT_EQ(second->pools[0]->backends[0].get(), kept.get());
  EXPECT_TRUE(second->pools[0]->backends[0]->state.drained);
  EXPECT_GT(second->pools[0]->backends[1]->id, first->pools[0]->backends[1]->id);
  kept->state.drained = false;
  PoolTable table(second->pools[0], 0);
  EXPECT_EQ(table.Usable(kStart, {}).candidates[0].weight, 3);
}

TEST(Fleet, ANameHasNoAddressUntilItIsResolved) {
  config::Pool settings;
  settings.backends.push_back({.name = "n", .address = "engine.local:9001"});
  const auto fleet = FleetOf(settings, 1);
  EXPECT_TRUE(fleet->pools[0]->backends[0]->address().text.empty());
}

}  // namespace
}  // namespace penstock
