// A step allocates nothing on any rank: this binary's operator new counts while
// it is told to. Under a sanitizer, which has its own, nothing is counted.
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <new>

#include "backend-engine/exec/cpu_runner.h"
#include "tests/backend-engine/model/random_model.h"

namespace {

std::atomic<bool> counting{false};
std::atomic<int> allocations{0};

}  // namespace

#ifndef PENSTOCK_SANITIZED
void* operator new(size_t size) {
  if (counting.load(std::memory_order_relaxed)) ++allocations;
  if (void* memory = std::malloc(size)) return memory;
  throw std::bad_alloc();
}
// The compiler sees through an inlined delete and takes free() for a mismatch.
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, size_t) noexcept { std::free(memory); }
#endif

namespace penstock::engine {
namespace {

// A step of `sequences` sequences with `tokens` tokens each, from nothing.
StepPlan MakePlan(int32_t sequences, int32_t tokens, const SamplingParams& sampling,
                  std::span<const int32_t> history) {
  StepPlan plan;
  for (int32_t i = 0; i < sequences; ++i) {
    plan.sequences.push_back({.id = static_cast<SequenceId>(i), .first_token = i * tokens,
                              .token_count = tokens, .first_block = i, .block_count = 1,
                              .sample = true, .sampling = &sampling, .history = history});
    for (int32_t t = 0; t < tokens; ++t) plan.tokens.push_back(t);
    plan.block_table.push_back(i);
  }
  return plan;
}

TEST(CpuRunner, AStepAllocatesNothingOnAnyRank) {
  const RandomModel model(SmallConfig());
  const CpuRunnerOptions options{.ranks = 2, .block_count = 8, .max_step_tokens = 64,
                                 .max_sequences = 8};
  std::string error;
  const auto runner = CpuRunner::Create(model.config(), model.source(), options, error);
  ASSERT_NE(runner, nullptr) << error;
  const SamplingParams sampling{.temperature = 0.7f, .top_k = 40, .top_p = 0.9f, .min_p = 0.01f,
                                .repetition_penalty = 1.1f, .presence_penalty = 0.1f,
                                .logit_bias = {{3, 1.0f}}};
  const std::vector<int32_t> history = {1, 2, 3, 4};
  const StepPlan plans[] = {MakePlan(8, 8, sampling, history), MakePlan(1, 1, sampling, history),
                            MakePlan(3, 16, sampling, history), MakePlan(8, 1, sampling, history)};
  StepResult result;
  result.sampled.reserve(8);
  counting = true;
  for (const StepPlan& plan : plans) ASSERT_EQ(runner->Run(plan, result), RunStatus::kOk);
  counting = false;
  EXPECT_EQ(allocations, 0);
}

}  // namespace
}  // namespace penstock::engine
