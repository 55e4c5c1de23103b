#include "proxy/request/recent_times.h"

#include <gtest/gtest.h>

namespace penstock {
namespace {

TEST(RecentTimes, SayNothingUntilThereAreEnough) {
  RecentTimes times;
  for (uint32_t i = 1; i < RecentTimes::kEnough; ++i) times.Add(kSecond, kSecond);
  EXPECT_FALSE(times.Quantile(0.5, kSecond));
  times.Add(kSecond, kSecond);
  EXPECT_TRUE(times.Quantile(0.5, kSecond));
}

TEST(RecentTimes, TellAQuantileWithinABucket) {
  RecentTimes times;
  for (int i = 1; i <= 1000; ++i) times.Add(i * kMillisecond, kSecond);
  for (const double share : {0.1, 0.5, 0.9, 0.95, 1.0}) {
    const MonoTime told = *times.Quantile(share, kSecond);
    EXPECT_GE(told, share * 1000 * kMillisecond) << share;
    EXPECT_LE(told, share * 1200 * kMillisecond) << share;
  }
}

TEST(RecentTimes, ForgetWhatIsTwoWindowsOld) {
  RecentTimes times;
  MonoTime now = 100 * kSecond;
  for (int i = 0; i < 100; ++i) times.Add(8 * kSecond, now);
  now += RecentTimes::kWindow;
  for (int i = 0; i < 100; ++i) times.Add(10 * kMillisecond, now);
  EXPECT_GT(*times.Quantile(0.95, now), 7 * kSecond);
  now += RecentTimes::kWindow;
  EXPECT_LT(*times.Quantile(0.95, now), 20 * kMillisecond);
  EXPECT_FALSE(times.Quantile(0.95, now + 2 * RecentTimes::kWindow));
}

TEST(RecentTimes, TakeTimesOfAnySize) {
  RecentTimes times;
  for (int i = 0; i < 20; ++i) times.Add(i % 2 == 0 ? 0 : kNever / 2, 0);
  EXPECT_LE(*times.Quantile(0.5, 0), 2 * kMillisecond);
  EXPECT_GT(*times.Quantile(1.0, 0), 600 * kSecond);
}

}  // namespace
}  // namespace penstock
