#include "backend-engine/exec/cpu_runner.h"

#include <gtest/gtest.h>

#include <atomic>
#include <stdexcept>
#include <thread>

#include "tests/backend-engine/exec/runner_contract.h"

namespace penstock::engine {
namespace {

std::unique_ptr<CpuRunner> Make(const RandomModel& model, CpuRunnerOptions options) {
  std::string error;
  auto runner = CpuRunner::Create(model.config(), model.source(), options, error);
  EXPECT_NE(runner, nullptr) << error;
  return runner;
}

std::string CreateError(const RandomModel& model, const CpuRunnerOptions& options) {
  std::string error;
  EXPECT_EQ(CpuRunner::Create(model.config(), model.source(), options, error), nullptr);
  return error;
}

TEST(CpuRunner, SaysWhatItIs) {
  const RandomModel model(SmallConfig());
  const auto runner = Make(model, {.ranks = 2, .block_tokens = 8, .block_count = 30,
                                   .max_step_tokens = 64, .max_sequences = 5});
  const RunnerInfo& info = runner->info();
  EXPECT_EQ(info.device, "cpu");
  EXPECT_EQ(info.tensor_parallel, 2);
  EXPECT_EQ(info.block_tokens, 8);
  EXPECT_EQ(info.block_count, 30);
  EXPECT_EQ(info.max_step_tokens, 64);
  EXPECT_EQ(info.max_sequences, 5);
  EXPECT_EQ(info.vocab_size, 101);
}

TEST(CpuRunner, RanksThatGetNoThreadAreAMessage) {
  const RandomModel model(SmallConfig());
  ExpectRanksWithoutThreadsAreAMessage([&] { return CreateError(model, {.ranks = 2}); });
}

TEST(CpuRunner, TheBudgetDecidesTheBlocksUpToWhatCanBeUsed) {
  const RandomModel model(SmallConfig());
  // Two layers of keys and values, 2 heads of 10, 16 tokens, bfloat16.
  const int64_t block = 2 * 2 * 2 * 10 * 16 * 2;
  EXPECT_EQ(Make(model, {.kv_bytes = 7 * block + 1})->info().block_count, 7);
  EXPECT_EQ(Make(model, {.dtype = DType::kF32, .kv_bytes = 7 * block})->info().block_count, 3);
  // Four ranks hold the two heads twice.
  EXPECT_EQ(Make(model, {.ranks = 4, .kv_bytes = 7 * block})->info().block_count, 3);
  // Three sequences of at most 96 tokens need no more than 18.
  EXPECT_EQ(Make(model, {.max_sequences = 3})->info().block_count, 18);
  EXPECT_NE(CreateError(model, {.kv_bytes = block - 1}).find("one KV block of 16 tokens needs"),
            std::string::npos);
}

TEST(CpuRunner, ARankThatCannotLoadFailsTheStartWithItsReason) {
  RandomModel model(SmallConfig());
  model.Remove("model.layers.1.mlp.down_proj.weight");
  for (const int ranks : {1, 2, 4}) {
    EXPECT_EQ(CreateError(model, {.ranks = ranks}),
              "tensor model.layers.1.mlp.down_proj.weight is missing; expected it with shape "
              "[52, 75]");
  }
  EXPECT_NE(CreateError(RandomModel(SmallConfig()), {.ranks = 3}).find("tensor parallel 3"),
            std::string::npos);
}

TEST(CpuRunner, OptionsBelowOneAreRefusedByName) {
  const RandomModel model(SmallConfig());
  EXPECT_EQ(CreateError(model, {.ranks = 0}), "ranks is 0, at least 1 needed");
  EXPECT_EQ(CreateError(model, {.max_sequences = -4}), "max_sequences is -4, at least 1 needed");
}

TEST(CpuRunner, ProgressEndsAtTheTotalOfAllRanks) {
  const RandomModel model(SmallConfig());
  int64_t last = 0;
  int64_t whole = 0;
  Make(model, {.ranks = 4, .progress = [&](int64_t done, int64_t total) {
                 EXPECT_GE(done, last);
                 EXPECT_LE(done, total);
                 last = done;
                 whole = total;
               }});
  EXPECT_EQ(last, whole);
}

TEST(CpuRunner, SampledTokensComeInPlanOrder) {
  const RandomModel model(SmallConfig());
  for (const int ranks : {1, 2}) {
    const auto runner = Make(model, {.ranks = ranks, .block_count = 64});
    Steps steps(*runner, 8);
    const SamplingParams asks{.temperature = 0, .logprobs = 2};
    steps.Add(4, {1, 2, 3}, 0, true);
    steps.Add(1, {7, 7}, 0, false);
    steps.Add(3, {9}, 0, true, &asks);
    const StepResult& result = steps.Run();
    ASSERT_EQ(result.sampled.size(), 2u);
    EXPECT_EQ(result.sampled[0].id, 4u);
    EXPECT_EQ(result.sampled[1].id, 3u);
    EXPECT_TRUE(result.sampled[0].top.empty());
    ASSERT_EQ(result.sampled[1].top.size(), 2u);
    EXPECT_EQ(result.sampled[1].top[0].token, result.sampled[1].token);
    EXPECT_FLOAT_EQ(result.sampled[1].top[0].logprob, result.sampled[1].logprob);
  }
}

std::unique_ptr<Runner> MakeForContract(const RandomModel& model, int ranks, int32_t blocks) {
  return Make(model, {.ranks = ranks, .block_count = blocks});
}

TEST(CpuRunner, LogitsThatAreNotFiniteSpoilTheirOwnSequenceOnly) {
  ExpectLogitsThatAreNotFiniteSpoilTheirOwnSequence(SmallConfig(), MakeForContract);
}

TEST(CpuRunner, APlanOutOfBoundsFailsWithItsNumbers) {
  ExpectAPlanOutOfBoundsFails(SmallConfig(), MakeForContract);
}

TEST(CpuRunner, AbortMakesTheNextRunFail) {
  ExpectAbortFailsTheNextRun(SmallConfig(), MakeForContract);
}

TEST(CpuRunner, AbortFromAnotherThreadEndsARunThatGoesOn) {
  const RandomModel model(SmallConfig());
  const auto runner = Make(model, {.ranks = 2});
  std::atomic<bool> running{false};
  std::thread aborter([&] {
    running.wait(false);
    runner->Abort();
  });
  StepResult result;
  while (runner->Run(OneTokenPlan(), result) == RunStatus::kOk) {
    running = true;
    running.notify_all();
  }
  aborter.join();
  EXPECT_EQ(runner->error(), "the step was aborted");
}

// A table whose gate throws on every thread but the one that made the runner.
std::thread::id g_first_rank;
void ThrowElsewhere(const SiluMulArgs& args) {
  if (std::this_thread::get_id() != g_first_rank) throw std::runtime_error("out of luck");
  BestKernels().silu_mul(args);
}

TEST(CpuRunner, ARankThatDiesFailsTheRunAndIsNamed) {
  const RandomModel model(SmallConfig());
  g_first_rank = std::this_thread::get_id();
  Kernels kernels = BestKernels();
  kernels.silu_mul = &ThrowElsewhere;
  const auto runner = Make(model, {.ranks = 2, .kernels = &kernels});
  StepResult result;
  EXPECT_EQ(runner->Run(OneTokenPlan(), result), RunStatus::kFailed);
  EXPECT_EQ(runner->error(), "rank 1: out of luck");
}

TEST(CpuRunner, EachRankHoldsItsShareOfTheWeights) {
  ModelConfig config = SmallConfig();
  config.hidden_size = 128;
  config.vocab_size = 512;
  const RandomModel model(config);
  const int64_t whole = Make(model, {.ranks = 1})->weight_bytes(0);
  const auto halves = Make(model, {.ranks = 2});
  for (const int rank : {0, 1}) {
    EXPECT_LT(static_cast<double>(halves->weight_bytes(rank)), 0.53 * static_cast<double>(whole));
  }
}

}  // namespace
}  // namespace penstock::engine
