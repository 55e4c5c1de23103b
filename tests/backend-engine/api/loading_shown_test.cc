#include "backend-engine/api/loading_shown.h"

#include <gtest/gtest.h>

#include <vector>

namespace penstock::engine {
namespace {

TEST(LoadingShown, TellsTheShareFiveTimesASecondUntilItEnds) {
  TimerQueue timers(0);
  std::vector<double> told;
  LoadingShown shown(timers, "/models/m", [&](double share) { told.push_back(share); });
  EXPECT_TRUE(told.empty());
  shown.Begin();
  shown.Set(0.5);
  timers.AdvanceTo(timers.now() + 450 * kMillisecond);
  EXPECT_EQ(told, (std::vector<double>{0, 0.5, 0.5}));
  shown.End();
  shown.End();
  timers.AdvanceTo(timers.now() + kSecond);
  EXPECT_EQ(told.size(), 3u);
}

}  // namespace
}  // namespace penstock::engine
