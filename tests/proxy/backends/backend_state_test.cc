#include "proxy/backends/backend_state.h"

#include <atomic>
#include <deque>
#include <memory>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "config/parse.h"
#include "proxy/base/random.h"

namespace penstock {
namespace {

constexpr MonoTime kStart = 100'000 * kSecond;
constexpr MonoTime kTau = 10 * kSecond;

LoadReport PushedAt(MonoTime made, MonoTime arrived, uint64_t seq = 0, uint64_t epoch = 0) {
  LoadReport report;
  report.rung = lb::Rung::kPush;
  report.made = made;
  report.arrived = arrived;
  report.epoch = epoch;
  report.seq = seq;
  report.running = 1;
  report.waiting = 0;
  report.max_running = 8;
  return report;
}

struct World {
  std::unique_ptr<BackendState> owned = std::make_unique<BackendState>();
  BackendState& state = *owned;

  BackendState::Publish Publish(const LoadReport& report) {
    return state.PublishReport(report, 1500 * kMillisecond, true);
  }
  uint64_t SentSince() const {
    LoadReport report;
    EXPECT_TRUE(state.ReadReport(report));
    return state.sent_since(report);
  }
};

TEST(SentSince, CountsExactlyWhatWasSentAfterTheReportWasMade) {
  World world;
  for (int i = 0; i < 10; ++i) world.state.Sent(kStart + i * kMillisecond);
  world.Publish(PushedAt(kStart + 6 * kMillisecond, kStart + 50 * kMillisecond));
  EXPECT_EQ(world.SentSince(), 3u);
  world.state.Sent(kStart + 60 * kMillisecond);
  EXPECT_EQ(world.SentSince(), 4u);
}

TEST(SentSince, AReportThatArrivesLateCountsAllThatWasSentMeanwhile) {
  World world;
  for (int i = 0; i < 100; ++i) world.state.Sent(kStart + i * kMillisecond);
  world.Publish(PushedAt(kStart - 1, kStart + kSecond));
  EXPECT_EQ(world.SentSince(), 100u);
}

TEST(SentSince, IsBoundedByTheRing) {
  World world;
  for (int i = 0; i < 5000; ++i) world.state.Sent(kStart + i);
  world.Publish(PushedAt(kStart - 1, kStart + kSecond));
  EXPECT_EQ(world.SentSince(), BackendState::kSentKept);
}

TEST(SentSince, EqualsAPlainListOfSendTimesWhateverTheOrder) {
  for (uint64_t seed = 1; seed <= 200; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    Random random(seed);
    World world;
    std::deque<MonoTime> sent;
    MonoTime now = kStart;
    MonoTime newest = 0;
    for (int step = 0; step < 500; ++step) {
      now += random.Below(5000);
      if (random.Below(3) != 0) {
        world.state.Sent(now);
        sent.push_back(now);
        continue;
      }
      const MonoTime made = now - random.Below(100'000);  // Late, and out of order.
      const bool newer = made >= newest;
      EXPECT_EQ(world.Publish(PushedAt(made, now)) == BackendState::Publish::kTaken, newer);
      if (newer) newest = made;
      uint64_t after = 0;
      for (const MonoTime at : sent) after += at > newest ? 1 : 0;
      ASSERT_EQ(world.SentSince(), after);
    }
  }
}

TEST(LoadReports, AnEarlierOneOfTheSameEpochIsDropped) {
  World world;
  EXPECT_EQ(world.Publish(PushedAt(kStart, kStart, 7, 1)), BackendState::Publish::kTaken);
  EXPECT_EQ(world.Publish(PushedAt(kStart + 1, kStart + 1, 6, 1)), BackendState::Publish::kOld);
  EXPECT_EQ(world.Publish(PushedAt(kStart + 1, kStart + 1, 8, 1)), BackendState::Publish::kTaken);
  EXPECT_EQ(world.state.reports_old, 1u);
}

TEST(LoadReports, ARestartIsTakenAndItsPastIsNot) {
  World world;
  world.Publish(PushedAt(kStart, kStart, 900, 1));
  EXPECT_EQ(world.Publish(PushedAt(kStart + 5, kStart + 5, 1, 2)), BackendState::Publish::kTaken);
  EXPECT_EQ(world.Publish(PushedAt(kStart + 6, kStart + 6, 901, 1)), BackendState::Publish::kOld);
  EXPECT_EQ(world.Publish(PushedAt(kStart + 7, kStart + 7, 2, 2)), BackendState::Publish::kTaken);
}

TEST(LoadReports, AWorseRungWaitsUntilTheBetterOneIsStale) {
  World world;
  world.Publish(PushedAt(kStart, kStart, 1, 1));
  LoadReport piggyback = PushedAt(kStart + kSecond, kStart + kSecond);
  piggyback.rung = lb::Rung::kPiggyback;
  EXPECT_EQ(world.Publish(piggyback), BackendState::Publish::kOutranked);
  piggyback.made = piggyback.arrived = kStart + 2 * kSecond;
  EXPECT_EQ(world.Publish(piggyback), BackendState::Publish::kTaken);
  EXPECT_EQ(world.Publish(PushedAt(kStart + 3 * kSecond, kStart + 3 * kSecond, 2, 1)),
            BackendState::Publish::kTaken);
}

TEST(LoadReports, CountAsTheirRungOnlyWhileFresh) {
  const LoadReport push = PushedAt(kStart, kStart);
  EXPECT_EQ(RungAt(push, kStart + kSecond, kSecond, kSecond), lb::Rung::kPush);
  EXPECT_EQ(RungAt(push, kStart + kSecond + 1, kSecond, kSecond), lb::Rung::kOwn);
  LoadReport poll = push;
  poll.rung = lb::Rung::kPoll;
  EXPECT_EQ(RungAt(poll, kStart + 2500 * kMillisecond, kSecond, kSecond), lb::Rung::kPoll);
  EXPECT_EQ(RungAt(poll, kStart + 2501 * kMillisecond, kSecond, kSecond), lb::Rung::kOwn);
  EXPECT_EQ(RungAt(LoadReport{}, kStart, kSecond, kSecond), lb::Rung::kOwn);
}

TEST(LoadReports, ForgettingOneForgetsItsEpoch) {
  World world;
  world.Publish(PushedAt(kStart, kStart, 900, 5));
  world.state.ForgetReport();
  LoadReport report;
  ASSERT_TRUE(world.state.ReadReport(report));
  EXPECT_FALSE(report.known());
  EXPECT_EQ(world.Publish(PushedAt(kStart - 5, kStart, 1, 5)), BackendState::Publish::kTaken);
}

TEST(LoadReports, AreNeverReadHalfWritten) {
  World world;
  std::atomic<bool> stop{false};
  std::vector<std::thread> writers;
  for (int writer = 0; writer < 2; ++writer) {
    writers.emplace_back([&, writer] {
      for (uint64_t i = 1; i <= 20'000; ++i) {
        LoadReport report = PushedAt(kStart + static_cast<MonoTime>(i), kStart + static_cast<MonoTime>(i));
        report.running = report.waiting = report.step_ms = static_cast<float>(i);
        world.state.PublishReport(report, 0, writer == 0);
        world.state.Sent(kStart + static_cast<MonoTime>(i));
      }
      stop = true;
    });
  }
  uint64_t reads = 0;
  do {
    LoadReport report;
    if (!world.state.ReadReport(report) || !report.known()) continue;
    ++reads;
    ASSERT_EQ(report.running, report.waiting);
    ASSERT_EQ(report.running, report.step_ms);
    ASSERT_EQ(report.made - kStart, static_cast<MonoTime>(report.running));
  } while (!stop || reads == 0);
  for (auto& writer : writers) writer.join();
}

TEST(Ttft, JumpsUpAtOnceAndFallsWithTau) {
  World world;
  world.state.ObserveTtft(100 * kMillisecond, kStart, kTau);
  world.state.ObserveTtft(2 * kSecond, kStart + kSecond, kTau);
  EXPECT_FLOAT_EQ(world.state.ttft(kStart + kSecond).seconds, 2);
  world.state.ObserveTtft(100 * kMillisecond, kStart + 11 * kSecond, kTau);
  EXPECT_NEAR(world.state.ttft(kStart + 11 * kSecond).seconds, 0.1 + 1.9 * 0.3679, 0.001);
}

TEST(Ttft, WithoutDataThereIsNone) {
  World world;
  EXPECT_LT(world.state.ttft(kStart).seconds, 0);
  EXPECT_LT(world.state.ttft(kStart).Towards(3, kTau), 0);
}

TEST(Ttft, ATimeFromAThreadThatIsBehindIsNoIdleTime) {
  World world;
  world.state.ObserveTtft(kSecond, kStart, kTau);
  EXPECT_EQ(world.state.ttft(kStart - 5 * kMillisecond).idle, 0);
}

TEST(OldestWait, IsTheOldestOfAllWorkers) {
  World world;
  EXPECT_EQ(world.state.oldest_wait(), kNever);
  for (const uint32_t worker : {63, 3}) world.state.AddWorker(worker);
  world.state.worker(3).oldest_wait = kStart + 5;
  world.state.worker(63).oldest_wait = kStart + 2;
  EXPECT_EQ(world.state.oldest_wait(), kStart + 2);
}

TEST(HealthWord, KeepsSinceWhenTheHealthStaysTheSame) {
  World world;
  world.state.SetHealth(Health::kHealthy, kStart);
  world.state.SetHealth(Health::kHealthy, kStart + kSecond);
  EXPECT_EQ(world.state.health_since(), kStart);
  world.state.SetHealth(Health::kDown, kStart + 2 * kSecond);
  EXPECT_EQ(world.state.health(), Health::kDown);
  EXPECT_EQ(world.state.health_since(), kStart + 2 * kSecond);
  EXPECT_EQ(world.state.ramp_from, kNever);
  world.state.SetHealth(Health::kHealthy, kStart + 3 * kSecond);
  EXPECT_EQ(world.state.ramp_from, kStart + 3 * kSecond);
}

TEST(WorkerMetrics, HandsOutTheSameCellsForTheSamePoolAndHasALimit) {
  WorkerMetrics metrics;
  PoolCells& cells = metrics.Pool("chat");
  EXPECT_EQ(&cells, &metrics.Pool("chat"));
  for (int i = 0; i < 1000; ++i) metrics.Pool("pool" + std::to_string(i));
  EXPECT_EQ(metrics.Pools().size(), WorkerMetrics::kPoolsMax);
  EXPECT_EQ(metrics.Pool("one more").name, "other");
}

TEST(WorkerMetrics, CountsUnknownCodesTogether) {
  EXPECT_NE(CodeIndex(200), CodeIndex(299));
  EXPECT_EQ(CodeIndex(299), CodeIndex(998));
  EXPECT_EQ(CodeIndex(0), kCodes - 1);
}

TEST(WorkerMetrics, ABucketHoldsItsUpperBound) {
  PoolCells cells("chat");
  cells.ttft.Observe(500'000);
  cells.ttft.Observe(500'001);
  cells.ttft.Observe(kSecond * 1000);
  EXPECT_EQ(cells.ttft.bucket(9), 1);
  EXPECT_EQ(cells.ttft.bucket(10), 1);
  EXPECT_EQ(cells.ttft.bucket(kTtftBounds.size()), 1);
}

TEST(BackendState, HasRoomForEveryWorkerThatAPolicyFileMaySay) {
  const auto parse = [](uint32_t workers) {
    return config::Parse("version: v1\nserver: {workers: " + std::to_string(workers) +
                             "}\npools:\n  - name: main\n    backends: [\"10.0.0.1:80\"]\n",
                         "policy.yaml", {});
  };
  EXPECT_TRUE(parse(kMaxWorkers).ok()) << parse(kMaxWorkers).Messages();
  EXPECT_FALSE(parse(kMaxWorkers + 1).ok());
}

}  // namespace
}  // namespace penstock
