#include "proxy/request/retry.h"

#include <gtest/gtest.h>

namespace penstock {
namespace {

struct World {
  config::Retry settings;
  RetryBudget budget{settings};
  Tries tries{.faults = 1};
  RetryQuestion question{.body_kept = true};

  RetryVerdict Ask() { return MayRetry(question, tries, settings, budget); }
};

TEST(Retry, IsFreeOnceForAConnectionThatDied) {
  World world;
  world.question.connection_died = true;
  EXPECT_EQ(world.Ask(), RetryVerdict::kFree);
  world.tries.free_used = true;
  EXPECT_EQ(world.Ask(), RetryVerdict::kPaid);
}

TEST(Retry, IsFreeForABackendThatIsSuspected) {
  World world;
  world.question.backend_suspect = true;
  EXPECT_EQ(world.Ask(), RetryVerdict::kFree);
}

TEST(Retry, IsNotFreeOnceTheAnswerHasBegun) {
  World world;
  world.question.connection_died = world.question.backend_suspect = world.question.answer_begun = true;
  EXPECT_EQ(world.Ask(), RetryVerdict::kPaid);
}

TEST(Retry, FreeRetriesTakeNothingFromASpentBudget) {
  World world;
  while (world.budget.TryBegin()) continue;
  EXPECT_EQ(world.Ask(), RetryVerdict::kNo);
  world.question.connection_died = true;
  EXPECT_EQ(world.Ask(), RetryVerdict::kFree);
}

TEST(Retry, NeverComesAfterSomethingOfAnAnswerWasSent) {
  World world;
  world.question.answer_sent = world.question.connection_died = true;
  EXPECT_EQ(world.Ask(), RetryVerdict::kNo);
}

TEST(Retry, NeverComesWithoutTheWholeRequest) {
  World world;
  world.question.body_kept = false;
  world.question.connection_died = true;
  EXPECT_EQ(world.Ask(), RetryVerdict::kNo);
}

TEST(Retry, StopsAfterAsManyTriesAsAreAllowed) {
  World world;
  world.settings.attempts = 2;
  world.tries.faults = 2;
  EXPECT_EQ(world.Ask(), RetryVerdict::kPaid);
  world.tries.faults = 3;
  EXPECT_EQ(world.Ask(), RetryVerdict::kNo);
  world.tries.free_used = true;  // The free one is not among them.
  EXPECT_EQ(world.Ask(), RetryVerdict::kPaid);
}

TEST(Retry, WithoutAttemptsOnlyFreeOnesAreLeft) {
  World world;
  world.settings.attempts = 0;
  EXPECT_EQ(world.Ask(), RetryVerdict::kNo);
  world.question.connection_died = true;
  EXPECT_EQ(world.Ask(), RetryVerdict::kFree);
}

TEST(Retry, ARequestPaysOnce) {
  World world;
  world.settings.attempts = 5;
  world.tries.paid = true;
  while (world.budget.TryBegin()) continue;
  EXPECT_EQ(world.Ask(), RetryVerdict::kPaid);
}

TEST(BackOff, IsAnythingUpToALimitThatGrowsToAQuarterOfASecond) {
  Random random(3);
  const MonoTime limits[] = {25, 50, 100, 200, 250, 250, 250};
  for (uint32_t earlier = 0; earlier < std::size(limits); ++earlier) {
    MonoTime least = kSecond, most = 0;
    for (int i = 0; i < 2000; ++i) {
      const MonoTime wait = BackOffTime(earlier, random);
      least = std::min(least, wait);
      most = std::max(most, wait);
    }
    EXPECT_LT(least, limits[earlier] * kMillisecond / 20) << earlier;
    EXPECT_GT(most, limits[earlier] * kMillisecond * 19 / 20) << earlier;
    EXPECT_LT(most, limits[earlier] * kMillisecond) << earlier;
  }
  EXPECT_LT(BackOffTime(4000000000u, random), 250 * kMillisecond);
}

TEST(RetryBudget, AllowsThreeToASmallFleet) {
  RetryBudget budget{config::Retry{}};
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(budget.TryBegin());
  EXPECT_FALSE(budget.TryBegin());
  budget.RetryEnded();
  EXPECT_TRUE(budget.TryBegin());
}

TEST(RetryBudget, AllowsItsShareOfTheActiveRequests) {
  RetryBudget budget{config::Retry{}};
  for (int i = 0; i < 100; ++i) budget.RequestBegun();
  int begun = 0;
  while (budget.TryBegin()) ++begun;
  EXPECT_EQ(begun, 20);
  for (int i = 0; i < 50; ++i) budget.RequestEnded();
  EXPECT_EQ(budget.active(), 50u);
  for (int i = 0; i < 10; ++i) {
    EXPECT_FALSE(budget.TryBegin());
    budget.RetryEnded();
  }
  EXPECT_FALSE(budget.TryBegin());
  budget.RetryEnded();
  EXPECT_TRUE(budget.TryBegin());
}

}  // namespace
}  // namespace penstock
