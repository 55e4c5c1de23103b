// What goes wrong in other engines when the KV cache runs out, each as a
// promise: no storms, no livelock, no resume and preempt in turns, no starving.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "backend-engine/sched/scheduler.h"
#include "tests/backend-engine/sched/driver.h"

namespace penstock::engine {
namespace {

// Two sequences that grow until a pool of 20 blocks is used up: 1 has computed
// more than 2 when that happens.
constexpr SchedulerOptions kTight = {
    .block_tokens = 4, .block_count = 20, .step_tokens = 64, .max_running = 8};

// Steps until the first preemption.
void StepToPreemption(Driver& driver) {
  const uint64_t before = driver.scheduler.totals().preemptions;
  for (int step = 0; driver.scheduler.totals().preemptions == before; ++step) {
    ASSERT_LT(step, 1000);
    driver.Step();
  }
}

TEST(Preemption, TakesTheOneThatHasComputedLeast) {
  Driver driver(kTight);
  driver.scheduler.Add(1, MakeRequest(8, 60), 0);
  driver.scheduler.Add(2, MakeRequest(24, 40), 0);
  StepToPreemption(driver);
  EXPECT_FALSE(driver.Planned(1));
  EXPECT_TRUE(driver.Planned(2));
}

TEST(Preemption, NobodyIsAdmittedInAStepThatPreempted) {
  Driver driver(kTight);
  driver.scheduler.Add(1, MakeRequest(24, 50), 0);
  driver.scheduler.Add(2, MakeRequest(24, 50), 0);
  driver.Step();
  driver.scheduler.Add(3, MakeRequest(1, 1), 0);  // Fits into what the victim leaves.
  while (driver.Planned(2)) driver.Step();
  EXPECT_FALSE(driver.Planned(3));
  EXPECT_EQ(driver.scheduler.running(), 1);
}

TEST(Preemption, TheVictimGoesBeforeThoseThatCameLater) {
  Driver driver(kTight);
  driver.scheduler.Add(1, MakeRequest(24, 50), 0);
  driver.scheduler.Add(2, MakeRequest(20, 50), 0);
  StepToPreemption(driver);
  driver.scheduler.Add(3, MakeRequest(30, 20), 0);
  bool two_came_back = false;
  while (!driver.scheduler.idle()) {
    driver.Step();
    two_came_back = two_came_back || driver.Planned(2);
    if (driver.Planned(3)) {
      EXPECT_TRUE(two_came_back);
    }
  }
}

TEST(Preemption, TheVictimIsNotResumedBeforeSomebodyEnds) {
  Driver driver(kTight);
  driver.scheduler.Add(1, MakeRequest(24, 50), 0);
  driver.scheduler.Add(2, MakeRequest(20, 50), 0);
  StepToPreemption(driver);
  bool one_ended = false;
  while (!one_ended) {
    driver.Step();
    EXPECT_FALSE(driver.Planned(2));
    one_ended = !driver.events.empty() && driver.events[0].finish != FinishReason::kNone;
  }
  driver.Step();
  EXPECT_TRUE(driver.Planned(2));
  EXPECT_EQ(driver.planned[2].start, 0);
}

TEST(Preemption, TheAnswerGoesOnWhereItWas) {
  Driver driver(kTight);
  driver.scheduler.Add(1, MakeRequest(24, 50), 0);
  driver.scheduler.Add(2, MakeRequest(20, 50), 0);
  driver.Finish();
  EXPECT_GT(driver.scheduler.totals().preemptions, 0u);
  std::vector<int32_t> answer;
  for (const TokenEvent& event : driver.all_events) {
    if (event.id == 2) answer.push_back(event.token);
  }
  ASSERT_EQ(answer.size(), 50u);
  for (size_t i = 0; i < answer.size(); ++i) EXPECT_EQ(answer[i], driver.choose(2, 20 + i));
}

TEST(Preemption, ASequenceThatNeedsTheWholePoolGetsIt) {
  Driver driver(kTight);
  driver.scheduler.Add(1, MakeRequest(40, 41), 0);  // 80 tokens in the cache: all 20 blocks.
  for (SequenceId id = 2; id < 30; ++id) driver.scheduler.Add(id, MakeRequest(30, 20), 0);
  driver.Finish(5000);
  const auto of_one = std::count_if(driver.all_events.begin(), driver.all_events.end(),
                                    [](const TokenEvent& event) { return event.id == 1; });
  EXPECT_EQ(of_one, 41);
}

// A sequence amid an endless stream of others that compute more than it does.
struct Stream {
  int32_t block_count;
  int32_t max_running;
  int32_t prompt, answer;              // Of the one watched,
  int32_t others_prompt, others_answer;  // of all others.
};

// How often the one watched was preempted before it ended.
int CountPreemptions(const Stream& stream) {
  Driver driver({.block_tokens = 4,
                 .block_count = stream.block_count,
                 .step_tokens = 64,
                 .max_running = stream.max_running});
  constexpr SequenceId kWatched = 1;
  SequenceId next = 2;
  const auto add_other = [&] {
    driver.scheduler.Add(next++, MakeRequest(stream.others_prompt, stream.others_answer), 0);
  };
  for (int i = 0; i < 5; ++i) add_other();
  driver.scheduler.Add(kWatched, MakeRequest(stream.prompt, stream.answer), 0);
  int preempted = 0;
  int32_t computed = 0;
  for (int step = 0; step < 3000; ++step) {
    while (driver.scheduler.waiting() < 3) add_other();
    driver.Step();
    if (driver.Planned(kWatched)) {
      const StepSequence& planned = driver.planned[kWatched];
      if (planned.start < computed) ++preempted;
      computed = planned.start + planned.token_count;
    }
    for (const TokenEvent& event : driver.events) {
      if (event.id == kWatched && event.finish == FinishReason::kLength) return preempted;
    }
  }
  ADD_FAILURE() << "never ended";
  return preempted;
}

TEST(Preemption, AStreamOfLongerSequencesStarvesNobody) {
  // By least computed alone, each of these would be the victim a third time.
  for (const Stream& stream : {Stream{91, 9, 14, 94, 119, 41}, Stream{68, 7, 12, 36, 50, 15},
                               Stream{67, 9, 6, 110, 104, 104}, Stream{119, 6, 6, 91, 69, 24}}) {
    EXPECT_LE(CountPreemptions(stream), Scheduler::kPreemptionsMax)
        << "pool of " << stream.block_count << " blocks";
  }
}

struct Waste {
  double recomputed = 0;  // Share of all computed tokens that was thrown away.
  uint64_t steps = 0;
};

// 64 sequences at once whose whole need is met by the pool to `share`.
Waste RunOffline(double share) {
  constexpr int32_t kSequences = 64;
  int32_t need = 0;
  for (int32_t i = 0; i < kSequences; ++i) need += (100 + 10 * (i % 7) + 200) / 16 + 1;
  Driver driver({.block_tokens = 16,
                 .block_count = static_cast<int32_t>(need * share),
                 .step_tokens = 256,
                 .max_running = kSequences});
  for (int32_t i = 0; i < kSequences; ++i) {
    driver.scheduler.Add(static_cast<SequenceId>(i + 1), MakeRequest(100 + 10 * (i % 7), 200), 0);
  }
  driver.Finish();
  const SchedulerTotals& totals = driver.scheduler.totals();
  const auto computed = static_cast<double>(totals.prefill_tokens + totals.generated_tokens);
  return {static_cast<double>(totals.recomputed_tokens) / computed, totals.steps};
}

TEST(Preemption, ASmallPoolWastesLittleOfWhatItComputes) {
  // Every answer goes to its limit, which nothing foretells. Engines that admit
  // and preempt freely are reported to throw away 32, 58 and 79 % in the last three.
  for (const double share : {0.67, 0.38, 0.19, 0.10}) {
    EXPECT_LT(RunOffline(share).recomputed, 0.22) << "pool at " << share << " of the need";
  }
}

TEST(Preemption, RequestsThatMayBeLongButAreNotLeaveNoRoomUnused) {
  // Clients rarely set max_tokens, so it is what the model allows; answers are short.
  Driver driver({.block_tokens = 16, .block_count = 600, .step_tokens = 256, .max_running = 64});
  driver.choose = [](SequenceId id, size_t length) { return length >= 60 + id % 20 ? 5 : 6; };
  SequenceId next = 1;
  for (int step = 0; step < 500; ++step) {
    while (driver.scheduler.waiting() < 70) {
      GenerateRequest request = MakeRequest(40, 8000);
      request.stop_tokens = {5};
      driver.scheduler.Add(next++, request, 0);
    }
    driver.Step();
  }
  EXPECT_GE(driver.scheduler.running(), 60);
  EXPECT_EQ(driver.scheduler.totals().preemptions, 0u);
}

TEST(Preemption, ThePoolFillsUpAgainAfterAPreemption) {
  // One preemption makes admission careful, not for ever: the crowd of short
  // ones that comes afterwards runs side by side as if it had never been.
  const auto crowd_at_the_end = [](bool preempt_first) {
    Driver driver({.block_tokens = 16, .block_count = 64, .step_tokens = 128, .max_running = 32});
    if (preempt_first) {
      driver.scheduler.Add(1, MakeRequest(480, 100), 0);
      driver.scheduler.Add(2, MakeRequest(480, 100), 0);
      driver.Finish();
      EXPECT_GT(driver.scheduler.totals().preemptions, 0u);
    }
    SequenceId next = 3;
    for (int step = 0; step < 1000; ++step) {
      while (driver.scheduler.waiting() < 16) driver.scheduler.Add(next++, MakeRequest(20, 20), 0);
      driver.Step();
    }
    return driver.scheduler.totals().generated_tokens;
  };
  const auto fresh = static_cast<double>(crowd_at_the_end(false));
  EXPECT_GT(static_cast<double>(crowd_at_the_end(true)), 0.95 * fresh);
}

TEST(Preemption, AStormCalmsItself) {
  // A steady crowd in a pool for a tenth of it: after the first lesson, the room
  // left for growth keeps preemptions below one for every four sequences.
  Driver driver({.block_tokens = 16, .block_count = 100, .step_tokens = 256, .max_running = 64});
  SequenceId next = 1;
  uint64_t learning = 0;
  for (int step = 0; step < 4000; ++step) {
    while (driver.scheduler.waiting() < 32) driver.scheduler.Add(next++, MakeRequest(100, 200), 0);
    driver.Step();
    if (step == 500) learning = driver.scheduler.totals().preemptions;
  }
  const uint64_t later = driver.scheduler.totals().preemptions - learning;
  const uint64_t ended = driver.scheduler.totals().generated_tokens / 200;
  EXPECT_GT(ended, 80u);
  EXPECT_LT(later, ended / 4) << ended << " ended";
}

}  // namespace
}  // namespace penstock::engine
