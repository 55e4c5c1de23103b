// What a pool table promises beyond its answers: it allocates nothing once warm,
// and several of them with a control thread beside them share a pool safely.
#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "proxy/backends/pool_table.h"
#include "proxy/base/random.h"
#include "tests/proxy/backends/worlds.h"
#include "tests/support/allocations.h"

namespace penstock {
namespace {

constexpr MonoTime kStart = 1000 * kSecond;
constexpr std::string_view kField =
    "TEXT named_metrics.num_requests_waiting=1, named_metrics.num_requests_running=2";

// A worker that picks, sends and ends requests of every kind.
struct Worker {
  Worker(std::shared_ptr<const PoolState> pool, uint32_t index)
      : table(std::move(pool), index, index), random(index + 1), attempts(32) {}

  void Turn(MonoTime now) {
    Attempt& attempt = attempts[random.Below(static_cast<uint32_t>(attempts.size()))];
    if (!attempt.begun()) {
      const auto view = table.Usable(now, {});
      if (view.candidates.empty()) return;
      const auto& chosen = view.candidates[random.Below(static_cast<uint32_t>(view.candidates.size()))];
      table.Begin(attempt, chosen.id, random.Below(4) != 0, now);
      return;
    }
    table.FirstToken(attempt, now);
    if (random.Below(4) == 0) table.Report(*attempt.backend(), kField, now);
    const uint32_t dice = random.Below(40);
    table.End(attempt, dice == 0   ? Outcome::kFault
                       : dice == 1 ? Outcome::kBusy
                       : dice == 2 ? Outcome::kClientLeft
                                   : Outcome::kOk,
              now, dice * kMillisecond);
  }

  PoolTable table;
  Random random;
  std::vector<Attempt> attempts;
};

TEST(PoolTable, AllocatesNothingOnceWarm) {
  const auto pool = PoolOf(64);
  Worker worker(pool, 0);
  MonoTime now = kStart;
  for (int i = 0; i < 10'000; ++i) worker.Turn(now += kMillisecond);
  const uint64_t before = AllocationCount();
  for (int i = 0; i < 100'000; ++i) worker.Turn(now += kMillisecond);
  EXPECT_EQ(AllocationCount(), before);
}

TEST(PoolTable, ManyWorkersAndTheControlThreadAgreeInTheEnd) {
  const auto pool = PoolOf(5);
  std::vector<std::thread> threads;
  std::atomic<int> working{4};
  for (uint32_t index = 0; index < 4; ++index) {
    threads.emplace_back([&, index] {
      Worker worker(pool, index);
      for (int i = 0; i < 20'000; ++i) worker.Turn(kStart + i * kMillisecond);
      --working;
    });
  }
  Random random(99);
  uint64_t seq = 0;
  while (working > 0) {
    BackendState& state = pool->backends[random.Below(5)]->state;
    const MonoTime now = kStart + static_cast<MonoTime>(++seq) * kMillisecond;
    LoadReport report;
    report.rung = lb::Rung::kPush;
    report.epoch = 1;
    report.seq = seq;
    report.made = report.arrived = now;
    report.running = report.waiting = 0;
    report.max_running = 8;
    state.PublishReport(report, kSecond, true);
    state.SetHealth(random.Below(5) == 0 ? Health::kUnhealthy : Health::kHealthy, now);
    state.breaker.Tick(now);
    state.check_wanted.exchange(false);
    state.breaker.transitions();
  }
  for (auto& thread : threads) thread.join();
  uint64_t sent = 0;
  for (const auto& backend : pool->backends) {
    EXPECT_EQ(backend->state.in_flight(), 0u);
    EXPECT_EQ(backend->state.oldest_wait(), kNever);
    EXPECT_LE(backend->state.breaker.view().probes, 1u);
    sent += backend->state.sent_total();
  }
  EXPECT_GT(sent, 1000u);
}

}  // namespace
}  // namespace penstock
