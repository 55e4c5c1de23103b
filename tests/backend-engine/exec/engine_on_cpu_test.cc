// The engine with real arithmetic: whatever the scheduler does to a sequence,
// its answer is the same. On a CPU that holds to the bit, so every difference is
// a wrong block, a lost token or a stale cache.
#include <gtest/gtest.h>

#include <memory>
#include <random>
#include <string>
#include <vector>

#include "backend-engine/exec/cpu_runner.h"
#include "backend-engine/exec/engine.h"
#include "tests/backend-engine/exec/answers.h"
#include "tests/backend-engine/exec/late_runner.h"
#include "tests/backend-engine/model/random_model.h"

namespace penstock::engine {
namespace {

std::vector<GenerateRequest> Requests() {
  std::mt19937_64 random(20260203);
  std::vector<GenerateRequest> requests(24);
  for (GenerateRequest& request : requests) {
    const size_t length = 1 + random() % 40;
    for (size_t i = 0; i < length; ++i) {
      request.prompt.push_back(static_cast<int32_t>(random() % 101));
    }
    request.max_tokens = 20 + static_cast<int32_t>(random() % 30);
    request.sampling.temperature = random() % 2 == 0 ? 0.0f : 1.0f;
    request.sampling.seed = random();
    request.sampling.frequency_penalty = 0.5f;
  }
  return requests;
}

struct Outcome {
  std::vector<std::vector<int32_t>> answers;
  uint64_t preemptions = 0;
  int awaited = 0;
};

Outcome Generate(const CpuRunnerOptions& runner_options, const EngineOptions& options,
                 bool together, bool ahead = false) {
  const RandomModel model(SmallConfig());
  std::string error;
  std::unique_ptr<Runner> runner =
      CpuRunner::Create(model.config(), model.source(), runner_options, error);
  EXPECT_NE(runner, nullptr) << error;
  LateRunner* late = nullptr;
  if (ahead) {
    auto made = std::make_unique<LateRunner>(std::move(runner));
    late = made.get();
    runner = std::move(made);
  }
  Answers answers;
  Engine engine(std::move(runner), options, answers.sink());
  Outcome outcome;
  std::vector<SequenceId> ids;
  for (const GenerateRequest& request : Requests()) {
    ids.push_back(engine.Submit(request).id);
    if (!together) answers.WaitForEnd(ids.back());
  }
  for (const SequenceId id : ids) outcome.answers.push_back(answers.WaitForEnd(id).tokens);
  outcome.preemptions = engine.Load().preemptions;
  if (late != nullptr) outcome.awaited = late->awaited();
  return outcome;
}

TEST(EngineOnCpu, CrowdsChunksAndPreemptionsChangeNoAnswer) {
  const Outcome alone = Generate({.block_tokens = 8, .block_count = 64}, {}, false);
  EXPECT_EQ(alone.preemptions, 0u);
  EXPECT_EQ(alone.answers.back().size(), static_cast<size_t>(Requests().back().max_tokens));

  const Outcome crowd = Generate({.block_tokens = 8, .block_count = 512}, {}, true);
  EXPECT_EQ(crowd.answers, alone.answers);

  const Outcome chunks = Generate({.block_tokens = 4, .block_count = 512},
                              {.max_running = 4, .step_tokens = 5}, true);
  EXPECT_EQ(chunks.answers, alone.answers);

  const Outcome tight =
      Generate({.block_tokens = 4, .block_count = 40}, {.step_tokens = 70}, true);
  EXPECT_GT(tight.preemptions, 0u);
  EXPECT_EQ(tight.answers, alone.answers);
}

TEST(EngineOnCpu, StepsPlannedAheadChangeNoAnswer) {
  const Outcome alone = Generate({.block_tokens = 8, .block_count = 64}, {}, false);
  const Outcome ahead = Generate({.block_tokens = 8, .block_count = 64}, {}, false, true);
  EXPECT_EQ(ahead.answers, alone.answers);
  EXPECT_GT(ahead.awaited, 400);  // Nearly every token of an answer.

  const Outcome crowd = Generate({.block_tokens = 4, .block_count = 512},
                                 {.max_running = 4, .step_tokens = 5}, true, true);
  EXPECT_EQ(crowd.answers, alone.answers);
  EXPECT_GT(crowd.awaited, 100);

  const Outcome tight =
      Generate({.block_tokens = 4, .block_count = 40}, {.step_tokens = 70}, true, true);
  EXPECT_GT(tight.preemptions, 0u);
  EXPECT_EQ(tight.answers, alone.answers);
}

TEST(EngineOnCpu, TwoRanksKeepTheirAnswersOverPreemptions) {
  const Outcome alone = Generate({.ranks = 2, .block_tokens = 8, .block_count = 64}, {}, false);
  const Outcome tight =
      Generate({.ranks = 2, .block_tokens = 4, .block_count = 40}, {.step_tokens = 70}, true);
  EXPECT_GT(tight.preemptions, 0u);
  EXPECT_EQ(tight.answers, alone.answers);
}

}  // namespace
}  // namespace penstock::engine
