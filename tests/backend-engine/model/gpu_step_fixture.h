// Small steps for GPUs, and how they lie when they are packed.
#pragma once

#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "backend-engine/model/gpu_step.h"

namespace penstock::engine {

inline const GpuStepLimits kStepLimits{.step = {.tokens = 400, .sequences = 6, .block_tokens = 4,
                                                .block_count = 200, .vocab = 50, .positions = 400},
                                       .group = 2, .rows = 6};

struct PackedStep {
  PackedStep(const StepPlan& plan, int32_t bucket,
             const GpuSampling& sampling = GpuSampling(6, 100, 10, 50))
      : layout(kStepLimits), memory(static_cast<size_t>(layout.bytes()), std::byte{0xff}) {
    input.Reserve(kStepLimits.step);
    std::string error;
    EXPECT_TRUE(FillStepInput(plan, kStepLimits.step, false, input, error)) << error;
    shape = layout.Pack(input, sampling, bucket, memory.data());
    at = layout.At(memory.data());
  }
  StepInput input;
  GpuStepLayout layout;
  std::vector<std::byte> memory;
  GpuStepShape shape;
  GpuStepMemory at;
};

// Sequences of one token, the first of which may be awaited, around a chunk of a prompt.
inline StepPlan MixedPlan(int32_t awaited = -1) {
  StepPlan plan;
  plan.tokens.assign(1 + 130 + 1, 7);
  plan.block_table = {9, 8};
  for (int32_t block = 0; block < 33; ++block) plan.block_table.push_back(100 + block);
  plan.block_table.push_back(3);
  plan.sequences.push_back({.id = 1, .token_count = 1, .start = 5, .block_count = 2,
                            .sample = true, .awaited = awaited});
  plan.sequences.push_back({.id = 2, .first_token = 1, .token_count = 130, .first_block = 2,
                            .block_count = 33, .sample = true});
  plan.sequences.push_back({.id = 3, .first_token = 131, .token_count = 1, .first_block = 35,
                            .block_count = 1});
  return plan;
}

// Three sequences that decode.
inline StepPlan DecodePlan() {
  StepPlan plan;
  plan.tokens = {4, 5, 6};
  plan.block_table = {0, 1, 2};
  for (int32_t i = 0; i < 3; ++i) {
    plan.sequences.push_back({.id = 1, .first_token = i, .token_count = 1, .start = i,
                              .first_block = i, .block_count = 1, .sample = true});
  }
  return plan;
}

}  // namespace penstock::engine
