#include "backend-engine/exec/emulated_runner.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <thread>
#include <vector>

namespace penstock::engine {
namespace {

EmulatedOptions Options() {
  EmulatedOptions options;
  options.timing = *FindTimingTable("instant");
  options.plain_tokens = {3, 5, 8, 13, 21, 34};
  return options;
}

// A step of `sequences`, each computing `tokens` after `start` cached ones.
StepPlan MakePlan(int32_t sequences, int32_t tokens, int32_t start) {
  StepPlan plan;
  for (int32_t i = 0; i < sequences; ++i) {
    StepSequence& sequence = plan.sequences.emplace_back();
    sequence.id = static_cast<SequenceId>(i + 1);
    sequence.token_count = tokens;
    sequence.start = start;
    for (int32_t token = 0; token < tokens; ++token) plan.tokens.push_back(token);
  }
  return plan;
}

// The answer to `prompt`, token by token, in one slot.
std::vector<int32_t> Answer(EmulatedRunner& runner, std::vector<int32_t> prompt, size_t count,
                            const SamplingParams& sampling, SequenceId id) {
  std::vector<int32_t> history = prompt;
  while (history.size() < prompt.size() + count) {
    StepPlan plan = MakePlan(1, 1, 0);
    StepSequence& sequence = plan.sequences[0];
    sequence.id = id;
    sequence.sample = true;
    sequence.sampling = &sampling;
    sequence.history = history;
    sequence.prompt_length = static_cast<int32_t>(prompt.size());
    StepResult result;
    EXPECT_EQ(runner.Run(plan, result), RunStatus::kOk);
    history.push_back(result.sampled.at(0).token);
  }
  return {history.begin() + static_cast<std::ptrdiff_t>(prompt.size()), history.end()};
}

constexpr auto Greedy = [] {
  SamplingParams sampling;
  sampling.temperature = 0;
  return sampling;
};

TEST(EmulatedRunner, GivesTheSameAnswerToTheSamePromptOnEveryEngine) {
  EmulatedRunner first(Options());
  EmulatedRunner second(Options());
  const auto answer = Answer(first, {1, 2, 3}, 50, Greedy(), 1);
  EXPECT_EQ(Answer(second, {1, 2, 3}, 50, Greedy(), 77), answer);
  EXPECT_NE(Answer(second, {1, 2, 4}, 50, Greedy(), 78), answer);
}

TEST(EmulatedRunner, AnswersWithPlainTokensAlone) {
  EmulatedRunner runner(Options());
  for (const int32_t token : Answer(runner, {1, 2, 3}, 200, Greedy(), 1)) {
    const auto& plain = Options().plain_tokens;
    EXPECT_NE(std::find(plain.begin(), plain.end(), token), plain.end());
  }
}

TEST(EmulatedRunner, NeitherTemperatureNorSeedChangesAnAnswer) {
  EmulatedRunner runner(Options());
  SamplingParams warm;
  warm.seed = 1;
  const auto answer = Answer(runner, {1, 2, 3}, 50, warm, 1);
  EXPECT_EQ(Answer(runner, {1, 2, 3}, 50, Greedy(), 2), answer);
}

TEST(EmulatedRunner, EndsAnAnswerByItselfOnlyIfTold) {
  EmulatedOptions options = Options();
  options.stop_token = 99;
  options.answer_tokens_max = 10;
  EmulatedRunner runner(options);
  for (int32_t prompt = 0; prompt < 20; ++prompt) {
    const auto answer =
        Answer(runner, {prompt}, 11, Greedy(), static_cast<SequenceId>(prompt + 1));
    const auto stop = std::find(answer.begin(), answer.end(), 99);
    ASSERT_NE(stop, answer.end());
    EXPECT_NE(stop, answer.begin());
  }
}

TEST(EmulatedRunner, SaysThatItIsEmulated) {
  EXPECT_EQ(EmulatedRunner(Options()).info().device, "emulated instant");
}

TEST(EmulatedRunner, AbortEndsARunThatSleeps) {
  EmulatedOptions options = Options();
  options.timing.fixed_ms = 1e9;
  EmulatedRunner runner(options);
  StepResult result;
  RunStatus status = RunStatus::kOk;
  std::thread step([&] { status = runner.Run(MakePlan(1, 1, 0), result); });
  runner.Abort();
  step.join();
  EXPECT_EQ(status, RunStatus::kFailed);
  runner.Abort();
  EXPECT_EQ(runner.Run(MakePlan(1, 1, 0), result), RunStatus::kFailed);
}

TEST(TimingTable, H200CostsWhatItsMeasuredKernelsAddUpTo) {
  const TimingTable h200 = *FindTimingTable("h200");
  EXPECT_NEAR(h200.StepMs(MakePlan(1, 1, 1024)), 4.7, 0.3);
  EXPECT_NEAR(h200.StepMs(MakePlan(256, 1, 1024)), 14, 1);
  EXPECT_NEAR(h200.StepMs(MakePlan(1, 1024, 0)), 20, 1);
  EXPECT_NEAR(h200.StepMs(MakePlan(1, 8192, 0)), 173, 5);
}

TEST(TimingTable, H200CostsTheSameForAPromptInChunksApartFromTheFixedPart) {
  const TimingTable h200 = *FindTimingTable("h200");
  double chunks = 0;
  for (int32_t start = 0; start < 8192; start += 1024) {
    chunks += h200.StepMs(MakePlan(1, 1024, start));
  }
  EXPECT_NEAR(chunks, h200.StepMs(MakePlan(1, 8192, 0)), 15);
}

TEST(TimingTable, V100TakesAsLongAsTheOperatorsSay) {
  const TimingTable v100 = *FindTimingTable("v100");
  const auto request_ms = [&](int32_t in_flight) {
    return v100.StepMs(MakePlan(in_flight, 1, 0)) * 16;
  };
  EXPECT_NEAR(request_ms(1), 120, 1);
  EXPECT_LT(request_ms(8), 300);
  EXPECT_NEAR(request_ms(9), 850, 1);
  EXPECT_NEAR(request_ms(64), 850, 1);
}

TEST(TimingTable, EveryNameToldIsKnownAndNoOther) {
  for (const std::string_view name : kTimingTableNames) {
    const auto table = FindTimingTable(name);
    ASSERT_TRUE(table.has_value()) << name;
    EXPECT_EQ(table->name, name);
    EXPECT_GT(table->kv_tokens, 0);
  }
  EXPECT_FALSE(FindTimingTable("h2oo").has_value());
}

}  // namespace
}  // namespace penstock::engine
