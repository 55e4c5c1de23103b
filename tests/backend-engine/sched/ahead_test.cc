// Plans made while the step before is still under way.
#include <gtest/gtest.h>

#include "backend-engine/sched/scheduler.h"
#include "tests/backend-engine/sched/driver.h"

namespace penstock::engine {
namespace {

constexpr SchedulerOptions kRoomy{.block_tokens = 4, .block_count = 60, .step_tokens = 32,
                                  .max_running = 4};

// A result with the given tokens, in the plan's order.
StepResult Result(const StepPlan& plan, std::vector<int32_t> tokens) {
  StepResult result{.number = plan.number, .sampled = {}};
  for (const StepSequence& sequence : plan.sequences) {
    if (!sequence.sample) continue;
    result.sampled.push_back({.id = sequence.id, .token = tokens.front()});
    tokens.erase(tokens.begin());
  }
  return result;
}

TEST(PlanAhead, AsksForTheTokenThatTheOpenStepChooses) {
  Scheduler scheduler(kRoomy);
  scheduler.Add(1, MakeRequest(3, 9), 0);
  scheduler.Add(2, MakeRequest(5, 9), 0);
  scheduler.Plan();
  const StepPlan* next = scheduler.PlanAhead();
  ASSERT_NE(next, nullptr);
  ASSERT_EQ(next->sequences.size(), 2u);
  EXPECT_EQ(next->tokens, (std::vector<int32_t>{0, 0}));
  EXPECT_EQ(next->sequences[0].awaited, 0);
  EXPECT_EQ(next->sequences[1].awaited, 1);
  EXPECT_EQ(next->sequences[1].start, 5);
  EXPECT_EQ(next->sequences[1].history.size(), 5u);
  EXPECT_TRUE(next->sequences[1].sample);
}

TEST(PlanAhead, GoesOnWithAPromptInChunksWithoutAwaitingAnything) {
  Scheduler scheduler({.block_tokens = 4, .block_count = 60, .step_tokens = 6, .max_running = 2});
  scheduler.Add(1, MakeRequest(14, 5), 0);
  const StepPlan* plan = &scheduler.Plan();
  std::vector<TokenEvent> events;
  for (const int32_t count : {6, 2}) {
    const StepPlan* next = scheduler.PlanAhead();
    ASSERT_NE(next, nullptr);
    EXPECT_EQ(next->sequences.at(0).token_count, count);
    EXPECT_EQ(next->sequences.at(0).awaited, -1);
    EXPECT_EQ(next->sequences.at(0).sample, count == 2);
    StepResult result = Result(*plan, {});
    scheduler.Commit(*plan, result, 0, events);
    plan = next;
  }
  EXPECT_EQ(scheduler.PlanAhead()->sequences.at(0).awaited, 0);
}

TEST(PlanAhead, AnAnswerThatStopsWasComputedOnceInVainAndSaysNothingMore) {
  Scheduler scheduler(kRoomy);
  GenerateRequest request = MakeRequest(3, 9);
  request.stop_tokens = {77};
  scheduler.Add(1, std::move(request), 0);
  scheduler.Add(2, MakeRequest(3, 9), 0);
  const StepPlan& first = scheduler.Plan();
  const StepPlan* second = scheduler.PlanAhead();
  std::vector<TokenEvent> events;
  StepResult result = Result(first, {77, 5});
  scheduler.Commit(first, result, 0, events);
  ASSERT_EQ(events.size(), 2u);
  EXPECT_EQ(events[0].finish, FinishReason::kStop);
  EXPECT_EQ(scheduler.pool().used(), 1);  // Its blocks are free before its vain step is done.
  events.clear();
  const StepPlan* third = scheduler.PlanAhead();
  ASSERT_EQ(third->sequences.size(), 1u);
  EXPECT_EQ(third->sequences[0].awaited, 1);  // The second step still chooses for both.
  result = Result(*second, {8, 6});
  scheduler.Commit(*second, result, 0, events);
  ASSERT_EQ(events.size(), 1u);
  EXPECT_EQ(events[0].id, 2u);
  EXPECT_EQ(events[0].token, 6);
  EXPECT_EQ(scheduler.totals().vain_tokens, 1u);
  EXPECT_EQ(scheduler.totals().generated_tokens, 3u);
}

TEST(PlanAhead, AnAnswerThatEndsByItsLengthIsNotComputedInVain) {
  Scheduler scheduler(kRoomy);
  scheduler.Add(1, MakeRequest(3, 1), 0);
  const StepPlan& plan = scheduler.Plan();
  EXPECT_EQ(scheduler.PlanAhead(), nullptr);
  std::vector<TokenEvent> events;
  StepResult result = Result(plan, {5});
  scheduler.Commit(plan, result, 0, events);
  EXPECT_EQ(events.at(0).finish, FinishReason::kLength);
  EXPECT_EQ(scheduler.totals().vain_tokens, 0u);
}

TEST(PlanAhead, ACancelWhileStepsAreUnderWayFreesTheBlocksAtOnce) {
  Scheduler scheduler(kRoomy);
  scheduler.Add(1, MakeRequest(3, 9), 0);
  const StepPlan& first = scheduler.Plan();
  std::vector<TokenEvent> events;
  const StepPlan* second = scheduler.PlanAhead();
  StepResult result = Result(first, {5});
  scheduler.Commit(first, result, 0, events);
  events.clear();
  EXPECT_TRUE(scheduler.Cancel(1));
  EXPECT_EQ(scheduler.pool().used(), 0);
  EXPECT_TRUE(scheduler.idle());
  EXPECT_EQ(scheduler.PlanAhead(), nullptr);
  // Somebody else gets its slot and blocks, in a later step.
  scheduler.Add(2, MakeRequest(3, 9), 0);
  ASSERT_NE(scheduler.PlanAhead(), nullptr);
  result = Result(*second, {6});
  scheduler.Commit(*second, result, 0, events);
  EXPECT_TRUE(events.empty());
  EXPECT_EQ(scheduler.CheckInvariants(), "");
}

TEST(PlanAhead, WhereMemoryIsShortTheOpenStepIsWaitedFor) {
  Scheduler scheduler({.block_tokens = 4, .block_count = 3, .step_tokens = 32, .max_running = 2});
  scheduler.Add(1, MakeRequest(4, 5), 0);
  scheduler.Add(2, MakeRequest(4, 5), 0);
  const StepPlan* plan = &scheduler.Plan();
  std::vector<TokenEvent> events;
  ASSERT_EQ(plan->sequences.size(), 1u);  // Room to grow is left for the first.
  while (!scheduler.idle()) {
    const StepPlan* next = scheduler.PlanAhead();
    StepResult result = Result(*plan, {5, 5});
    scheduler.Commit(*plan, result, 0, events);
    ASSERT_EQ(scheduler.CheckInvariants(), "");
    plan = next != nullptr ? next : &scheduler.Plan();
  }
  EXPECT_EQ(events.size(), 10u);
}

}  // namespace
}  // namespace penstock::engine
