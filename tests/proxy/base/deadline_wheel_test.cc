#include "proxy/base/deadline_wheel.h"

#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "proxy/base/random.h"
#include "tests/support/seeds.h"

namespace penstock {
namespace {

constexpr MonoTime kTick = DeadlineWheel::kTick;

struct Bell {
  explicit Bell(DeadlineWheel& wheel)
      : deadline(
            wheel, [](void* self) { ++static_cast<Bell*>(self)->rung; }, this) {}
  int rung = 0;
  Deadline deadline;
};

TEST(DeadlineWheel, RingsOnceNeverEarlyAndAtMostOneTickLate) {
  DeadlineWheel wheel(kSecond);
  Bell bell(wheel);
  bell.deadline.Set(kSecond + 50 * kMillisecond);
  wheel.AdvanceTo(kSecond + 50 * kMillisecond - 1);
  EXPECT_EQ(bell.rung, 0);
  wheel.AdvanceTo(kSecond + 50 * kMillisecond + kTick);
  EXPECT_EQ(bell.rung, 1);
  EXPECT_FALSE(bell.deadline.armed());
  EXPECT_TRUE(wheel.empty());
  wheel.AdvanceTo(100 * kSecond);
  EXPECT_EQ(bell.rung, 1);
}

TEST(DeadlineWheel, ALaterDeadlineReplacesAnEarlierOneAndTheOtherWayRound) {
  DeadlineWheel wheel(0);
  Bell bell(wheel);
  bell.deadline.Set(kSecond);
  bell.deadline.Set(2 * kSecond);
  wheel.AdvanceTo(2 * kSecond - kTick);
  EXPECT_EQ(bell.rung, 0);
  wheel.AdvanceTo(2 * kSecond);
  EXPECT_EQ(bell.rung, 1);
  bell.deadline.Set(5 * kSecond);
  bell.deadline.Set(3 * kSecond);
  wheel.AdvanceTo(3 * kSecond);
  EXPECT_EQ(bell.rung, 2);
}

TEST(DeadlineWheel, ADeadlineFarBeyondTheWheelStillComes) {
  DeadlineWheel wheel(0);
  Bell bell(wheel);
  bell.deadline.Set(3600 * kSecond);
  for (MonoTime now = 0; now < 3600 * kSecond; now += 7 * kSecond) wheel.AdvanceTo(now);
  EXPECT_EQ(bell.rung, 0);
  wheel.AdvanceTo(3600 * kSecond);
  EXPECT_EQ(bell.rung, 1);
}

TEST(DeadlineWheel, OneThatIsClearedOrGoesAwayNeverRings) {
  DeadlineWheel wheel(0);
  Bell cleared(wheel);
  cleared.deadline.Set(kSecond);
  cleared.deadline.Clear();
  int rung = 0;
  {
    Deadline gone(
        wheel, [](void* count) { ++*static_cast<int*>(count); }, &rung);
    gone.Set(kSecond);
  }
  wheel.AdvanceTo(10 * kSecond);
  EXPECT_EQ(cleared.rung + rung, 0);
  EXPECT_TRUE(wheel.empty());
}

TEST(DeadlineWheel, ACallbackMaySetItselfAndDestroyOthers) {
  DeadlineWheel wheel(0);
  struct Owner {
    DeadlineWheel& wheel;
    std::vector<std::unique_ptr<Deadline>> all;
    int rung = 0;
  } owner{wheel, {}, 0};
  for (int i = 0; i < 4; ++i) {
    owner.all.push_back(std::make_unique<Deadline>(
        wheel,
        [](void* self) {
          auto& o = *static_cast<Owner*>(self);
          ++o.rung;
          o.all.clear();  // Its own too.
        },
        &owner));
    owner.all.back()->Set(kSecond);
  }
  Bell again(wheel);
  again.deadline.Set(kSecond);
  wheel.AdvanceTo(kSecond);
  EXPECT_EQ(owner.rung, 1);
  EXPECT_EQ(again.rung, 1);
  again.deadline.Set(wheel.now());  // In the past: at the next tick.
  wheel.AdvanceTo(kSecond + kTick);
  EXPECT_EQ(again.rung, 2);
}

TEST(DeadlineWheel, SaysWhenItMustBeLookedAtNext) {
  DeadlineWheel wheel(0);
  EXPECT_EQ(wheel.NextLook(), kNever);
  Bell bell(wheel);
  bell.deadline.Set(kSecond);
  EXPECT_LE(wheel.NextLook(), kSecond);
  Bell soon(wheel);
  soon.deadline.Set(100 * kMillisecond);
  EXPECT_LE(wheel.NextLook(), 100 * kMillisecond);
  wheel.AdvanceTo(100 * kMillisecond);
  EXPECT_GT(wheel.NextLook(), 100 * kMillisecond);
  EXPECT_LE(wheel.NextLook(), kSecond);
}

TEST(DeadlineWheel, AgreesWithASimpleModel) {
  ForEachSeed(50, [](uint64_t seed) {
    Random random(seed);
    DeadlineWheel wheel(0);
    std::vector<std::unique_ptr<Bell>> bells;
    for (int i = 0; i < 20; ++i) bells.push_back(std::make_unique<Bell>(wheel));
    std::vector<MonoTime> when(20, kNever);
    std::vector<int> rung(20, 0);
    MonoTime now = 0;
    for (int step = 0; step < 500; ++step) {
      const uint32_t i = random.Below(20);
      if (random.Below(3) == 0) {
        bells[i]->deadline.Clear();
        when[i] = kNever;
      } else {
        when[i] = now + random.Below(60'000'000);
        bells[i]->deadline.Set(when[i]);
      }
      // Jumps of more than the whole wheel too.
      now += random.Below(20) == 0 ? 40 * kSecond : random.Below(500'000);
      wheel.AdvanceTo(now);
      for (size_t k = 0; k < bells.size(); ++k) {
        if (bells[k]->rung > rung[k]) {
          ASSERT_EQ(bells[k]->rung, rung[k] + 1);
          ASSERT_LE(when[k], now);
          rung[k] = bells[k]->rung;
          when[k] = kNever;
        }
        ASSERT_GT(when[k], now - kTick) << "late: " << k;
      }
    }
  });
}

}  // namespace
}  // namespace penstock
