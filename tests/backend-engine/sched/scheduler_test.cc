#include "backend-engine/sched/scheduler.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "tests/backend-engine/sched/driver.h"

namespace penstock::engine {
namespace {

constexpr SchedulerOptions kRoomy = {
    .block_tokens = 4, .block_count = 1000, .step_tokens = 64, .max_running = 8};

// Also where the step before is still on its way, and a prompt takes several steps.
TEST(Scheduler, TheFirstTokensOfAnAnswerAreChosenByTheEarlyMask) {
  for (const bool ahead : {false, true}) {
    Driver driver({.block_tokens = 4, .block_count = 64, .step_tokens = 8, .max_running = 4});
    driver.ahead = ahead;
    std::string choices;
    driver.on_plan = [&](const StepPlan& plan) {
      for (const StepSequence& sequence : plan.sequences) {
        if (sequence.sample) choices += sequence.sampling->allowed != nullptr ? 'e' : '-';
      }
    };
    GenerateRequest request = MakeRequest(20, 6);
    request.min_tokens = 3;
    request.early_allowed = std::make_shared<const std::vector<uint32_t>>(1, 1u);
    driver.scheduler.Add(1, std::move(request), 0);
    driver.Finish();
    EXPECT_EQ(choices, "eee---") << ahead;
  }
}

TEST(Scheduler, AnswersWhenTheLastChunkOfAPromptIsComputed) {
  Driver driver({.block_tokens = 4, .block_count = 100, .step_tokens = 16, .max_running = 4});
  driver.scheduler.Add(1, MakeRequest(40, 5), 0);
  driver.Step();
  EXPECT_EQ(driver.planned[1].token_count, 16);
  EXPECT_EQ(driver.scheduler.waiting_tokens(), 24);
  driver.Step();
  EXPECT_TRUE(driver.events.empty());
  driver.Step();
  EXPECT_EQ(driver.planned[1].token_count, 8);
  ASSERT_EQ(driver.events.size(), 1u);
  EXPECT_EQ(driver.events[0].id, 1u);
  EXPECT_EQ(driver.scheduler.waiting_tokens(), 0);
}

TEST(Scheduler, TellsHowLongAFirstTokenTook) {
  Driver driver(kRoomy);
  driver.scheduler.Add(1, MakeRequest(40, 5), 3.5);
  driver.Step(5.0);
  ASSERT_EQ(driver.scheduler.first_token_waits().size(), 1u);
  EXPECT_DOUBLE_EQ(driver.scheduler.first_token_waits()[0], 1.5);
  driver.Step(6.0);
  EXPECT_TRUE(driver.scheduler.first_token_waits().empty());
}

TEST(Scheduler, ALongPromptNeverHoldsUpThoseThatGenerate) {
  Driver driver({.block_tokens = 4, .block_count = 1000, .step_tokens = 16, .max_running = 4});
  for (SequenceId id = 1; id <= 3; ++id) driver.scheduler.Add(id, MakeRequest(4, 200), 0);
  driver.Step();
  driver.scheduler.Add(4, MakeRequest(500, 5), 0);
  for (int step = 0; step < 30; ++step) {
    driver.Step();
    EXPECT_EQ(driver.events.size(), 3u);
    EXPECT_EQ(driver.planned[4].token_count, 13);
  }
}

TEST(Scheduler, AdmitsInTheOrderOfArrival) {
  Driver driver({.block_tokens = 4, .block_count = 10, .step_tokens = 64, .max_running = 4});
  driver.scheduler.Add(1, MakeRequest(20, 4), 0);
  driver.scheduler.Add(2, MakeRequest(36, 4), 0);  // Does not fit beside 1.
  driver.scheduler.Add(3, MakeRequest(4, 1), 0);   // Would fit, but came later.
  driver.Step();
  EXPECT_TRUE(driver.Planned(1));
  EXPECT_FALSE(driver.Planned(2));
  EXPECT_FALSE(driver.Planned(3));
}

TEST(Scheduler, AdmitsOnlyWhatFitsWithAllThatItKnows) {
  // Two prompts of 6 blocks in a pool of 10, in chunks of 2 blocks: were both
  // let in by their first chunks, neither could ever finish.
  Driver driver({.block_tokens = 4, .block_count = 10, .step_tokens = 8, .max_running = 4});
  driver.scheduler.Add(1, MakeRequest(24, 4), 0);
  driver.scheduler.Add(2, MakeRequest(24, 4), 0);
  driver.Step();
  EXPECT_EQ(driver.scheduler.running(), 1);
  EXPECT_EQ(driver.scheduler.pool().used(), 6);
  driver.Finish(20);
  EXPECT_EQ(driver.scheduler.totals().preemptions, 0u);
}

TEST(Scheduler, EndsAtMaxTokensAndAtAStopToken) {
  Driver driver(kRoomy);
  driver.choose = [](SequenceId, size_t length) { return static_cast<int32_t>(length); };
  driver.scheduler.Add(1, MakeRequest(10, 3), 0);
  GenerateRequest stopping = MakeRequest(10, 30);
  stopping.stop_tokens = {99, 14};
  driver.scheduler.Add(2, stopping, 0);
  driver.Finish();
  std::map<SequenceId, std::vector<TokenEvent>> answers;
  for (const TokenEvent& event : driver.all_events) answers[event.id].push_back(event);
  ASSERT_EQ(answers[1].size(), 3u);
  EXPECT_EQ(answers[1].back().finish, FinishReason::kLength);
  ASSERT_EQ(answers[2].size(), 5u);
  EXPECT_EQ(answers[2].back().finish, FinishReason::kStop);
  EXPECT_EQ(answers[2].back().token, 14);
}

TEST(Scheduler, AMaskThatAllowsNothingFailsItsSequenceAndSaysWhere) {
  Driver driver(kRoomy);
  for (SequenceId id = 1; id <= 2; ++id) driver.scheduler.Add(id, MakeRequest(10, 3), 0);
  driver.forbidden = {2};
  driver.Finish();
  std::string error;
  for (const TokenEvent& event : driver.all_events) {
    if (event.finish == FinishReason::kFailed) error += std::to_string(event.id) + ": " + event.error;
  }
  EXPECT_EQ(error, "2: the mask of allowed tokens allows none at position 10, token 1 of the answer; "
                   "it must allow at least one, or a stop token");
  EXPECT_EQ(driver.scheduler.pool().used(), 0);
}

TEST(Scheduler, LogitsThatAreNotFiniteFailTheirSequenceAlone) {
  Driver driver(kRoomy);
  for (SequenceId id = 1; id <= 3; ++id) driver.scheduler.Add(id, MakeRequest(10, 3), 0);
  driver.broken = {2};
  driver.Finish();
  int failed = 0;
  int finished = 0;
  for (const TokenEvent& event : driver.all_events) {
    if (event.finish == FinishReason::kFailed) {
      EXPECT_EQ(event.id, 2u);
      EXPECT_EQ(event.error, "the logits were not finite at position 10");
      ++failed;
    }
    if (event.finish == FinishReason::kLength) ++finished;
  }
  EXPECT_EQ(failed, 1);
  EXPECT_EQ(finished, 2);
  EXPECT_EQ(driver.scheduler.pool().used(), 0);
}

TEST(Scheduler, ASlotStaysWithItsSequenceAndIsUsedAgainAfterIt) {
  Driver driver({.block_tokens = 4, .block_count = 100, .step_tokens = 16, .max_running = 2});
  driver.scheduler.Add(1, MakeRequest(4, 2), 0);
  driver.scheduler.Add(2, MakeRequest(4, 20), 0);
  driver.scheduler.Add(3, MakeRequest(4, 20), 0);
  driver.Step();
  const int32_t first = driver.planned[1].slot;
  const int32_t second = driver.planned[2].slot;
  EXPECT_NE(first, second);
  driver.Step();
  driver.Step();
  EXPECT_EQ(driver.planned[2].slot, second);
  EXPECT_EQ(driver.planned[3].slot, first);
}

TEST(Scheduler, CancelFreesTheBlocksAtOnceInEveryState) {
  Driver driver({.block_tokens = 4, .block_count = 100, .step_tokens = 16, .max_running = 2});
  driver.scheduler.Add(1, MakeRequest(4, 50), 0);
  driver.scheduler.Add(2, MakeRequest(40, 50), 0);
  driver.scheduler.Add(3, MakeRequest(40, 50), 0);
  driver.Step();
  EXPECT_EQ(driver.scheduler.pool().used(), 11);
  EXPECT_TRUE(driver.scheduler.Cancel(3));  // Waiting.
  EXPECT_EQ(driver.scheduler.waiting(), 0);
  EXPECT_TRUE(driver.scheduler.Cancel(2));  // In the middle of its prompt.
  EXPECT_EQ(driver.scheduler.pool().used(), 1);
  EXPECT_TRUE(driver.scheduler.Cancel(1));  // Generating.
  EXPECT_FALSE(driver.scheduler.Cancel(1));
  EXPECT_EQ(driver.scheduler.pool().used(), 0);
  EXPECT_TRUE(driver.scheduler.idle());
  EXPECT_TRUE(driver.scheduler.Plan().empty());
  EXPECT_EQ(driver.scheduler.totals().left_queue, 3u);
}

TEST(Scheduler, FailingAllLeavesNothingBehind) {
  Driver driver(kRoomy);
  for (SequenceId id = 1; id <= 20; ++id) driver.scheduler.Add(id, MakeRequest(10, 30), 0);
  driver.Step();
  (void)driver.scheduler.Plan();  // Left open, as when the device fails.
  std::vector<TokenEvent> events;
  driver.scheduler.FailAll("rank 1 died", events);
  EXPECT_EQ(events.size(), 20u);
  EXPECT_TRUE(std::all_of(events.begin(), events.end(), [](const TokenEvent& event) {
    return event.finish == FinishReason::kFailed && event.error == "rank 1 died";
  }));
  EXPECT_EQ(driver.scheduler.CheckInvariants(), "");
  EXPECT_EQ(driver.scheduler.pool().used(), 0);
}

TEST(SchedulerDeathTest, ATokenThatTheDeviceOwesIsNotPassedOver) {
  Scheduler scheduler(kRoomy);
  scheduler.Add(1, MakeRequest(10, 3), 0);
  const StepPlan& plan = scheduler.Plan();
  StepResult result;
  result.number = plan.number;
  std::vector<TokenEvent> events;
  EXPECT_DEATH(scheduler.Commit(plan, result, 0, events), "no token for sequence 1");
}

}  // namespace
}  // namespace penstock::engine
