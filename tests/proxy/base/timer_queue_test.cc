#include "proxy/base/timer_queue.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>

namespace penstock {
namespace {

TEST(TimerQueue, FiresInDeadlineOrderAtTheirOwnTime) {
  TimerQueue timers(0);
  std::string fired;
  auto late = timers.After(30 * kSecond, [&] { fired += "late "; });
  auto early = timers.After(5 * kSecond, [&] {
    EXPECT_EQ(timers.now(), 5 * kSecond);
    fired += "early ";
  });
  auto same = timers.After(30 * kSecond, [&] { fired += "last "; });
  EXPECT_EQ(timers.NextDeadline(), 5 * kSecond);
  EXPECT_EQ(timers.size(), 3u);
  timers.AdvanceTo(60 * kSecond);
  EXPECT_EQ(fired, "early late last ");
  EXPECT_EQ(timers.size(), 0u);
  EXPECT_EQ(timers.now(), 60 * kSecond);
  EXPECT_FALSE(late.armed());
}

TEST(TimerQueue, ATimerThatGoesAwayOrIsReplacedNeverFires) {
  TimerQueue timers(0);
  {
    auto timer = timers.After(kSecond, [] { FAIL(); });
  }
  auto timer = timers.After(kSecond, [] { FAIL(); });
  int fired = 0;
  timer = timers.After(kSecond, [&] { ++fired; });
  EXPECT_TRUE(timer.armed());
  timers.AdvanceTo(2 * kSecond);
  EXPECT_EQ(fired, 1);
  EXPECT_EQ(timers.NextDeadline(), std::nullopt);
}

TEST(TimerQueue, ACallbackMayRearmDestroyAndReplaceItsOwnTimer) {
  TimerQueue timers(0);
  struct Ticker {
    TimerQueue& timers;
    TimerQueue::Timer timer;
    std::vector<MonoTime> ticks;
    void Arm() {
      timer = timers.After(10 * kSecond, [this] {
        ticks.push_back(timers.now());
        Arm();
      });
    }
  } ticker{timers, {}, {}};
  ticker.Arm();
  timers.AdvanceTo(35 * kSecond);
  EXPECT_EQ(ticker.ticks, (std::vector<MonoTime>{10 * kSecond, 20 * kSecond, 30 * kSecond}));

  auto owned = std::make_unique<TimerQueue::Timer>();
  *owned = timers.After(kSecond, [&] { owned.reset(); });
  timers.AdvanceTo(36 * kSecond);
  EXPECT_EQ(owned, nullptr);
}

TEST(TimerQueue, AfterCountsFromTheTimeThatWasObserved) {
  TimerQueue timers(0);
  timers.Observe(10 * kSecond);
  int fired = 0;
  auto timer = timers.After(kSecond, [&] { ++fired; });
  timers.AdvanceTo(10 * kSecond);
  EXPECT_EQ(fired, 0);
  timers.AdvanceTo(11 * kSecond);
  EXPECT_EQ(fired, 1);
}

}  // namespace
}  // namespace penstock
