#include "backend-engine/model/gpu_step.h"

#include <gtest/gtest.h>

#include "backend-engine/model/philox.h"
#include "tests/backend-engine/model/gpu_step_fixture.h"

namespace penstock::engine {
namespace {

TEST(GpuStep, SequencesOfOneTokenDecodeAndOthersComeInTilesLastRowsFirst) {
  const PackedStep packed(MixedPlan(), 0);
  EXPECT_EQ(packed.shape.tokens, 132);
  EXPECT_EQ(packed.shape.rows, 2);
  EXPECT_TRUE(packed.shape.picks);
  ASSERT_EQ(packed.shape.decodes, 2);
  EXPECT_EQ(packed.at.decodes[0], 0);
  EXPECT_EQ(packed.at.decodes[1], 2);
  // 130 tokens of two heads: 260 rows in tiles of 128.
  ASSERT_EQ(packed.shape.tiles, 3);
  for (int32_t i = 0; i < 3; ++i) {
    EXPECT_EQ(packed.at.tiles[i].sequence, 1);
    EXPECT_EQ(packed.at.tiles[i].first_row, 256 - 128 * i);
  }
  EXPECT_EQ(packed.at.sequences[1].first_block, 2);
  EXPECT_EQ(packed.at.block_table[35], 3);
  EXPECT_EQ(packed.at.slots[0], 8 * 4 + 1);
  EXPECT_EQ(packed.at.logit_rows[1], 130);
  EXPECT_FALSE(IsDecodeStep(packed.input));
}

TEST(GpuStep, ADecodeStepIsPaddedWithSequencesThatWriteToNobodysBlock) {
  const PackedStep packed(DecodePlan(), 5);
  EXPECT_TRUE(IsDecodeStep(packed.input));
  EXPECT_EQ(packed.shape.bucket, 5);
  EXPECT_EQ(packed.shape.tokens, 5);
  EXPECT_EQ(packed.shape.rows, 5);
  EXPECT_EQ(packed.shape.decodes, 5);
  EXPECT_EQ(packed.shape.table_entries, 4);
  EXPECT_FALSE(packed.shape.picks);
  for (int32_t i = 3; i < 5; ++i) {
    EXPECT_EQ(packed.at.slots[i], 200 * 4);
    EXPECT_EQ(packed.at.sequences[i].start, 0);
    EXPECT_EQ(packed.at.block_table[packed.at.sequences[i].first_block], 200);
    EXPECT_EQ(packed.at.logit_rows[i], i);
  }
}

TEST(GpuStep, AwaitedTokensAreNamedByTheirPlaceInTheStepAndInTheHistory) {
  StepPlan plan;
  plan.tokens = {0, 6, 0};
  plan.block_table = {0, 1, 2};
  const SamplingParams penalises{.presence_penalty = 1.0f};
  const std::vector<int32_t> history = {1, 2, 3};
  GpuSampling sampling(6, 100, 10, 50);
  for (int32_t i = 0; i < 3; ++i) {
    plan.sequences.push_back({.id = 1, .first_token = i, .token_count = 1, .start = 3,
                              .first_block = i, .block_count = 1, .sample = true,
                              .awaited = i == 1 ? -1 : 2 - i,
                              .sampling = i == 2 ? &penalises : nullptr, .history = history,
                              .prompt_length = 2});
    ASSERT_TRUE(sampling.Add(plan.sequences.back(), i));
  }
  const PackedStep packed(plan, 4, sampling);
  ASSERT_EQ(packed.shape.awaited, 2);
  EXPECT_EQ(packed.at.awaited[0].token, 0);
  EXPECT_EQ(packed.at.awaited[0].sample, 2);
  EXPECT_EQ(packed.at.awaited[1].token, 2);
  EXPECT_EQ(packed.at.awaited[1].sample, 0);
  ASSERT_EQ(packed.shape.awaited_history, 1);
  EXPECT_EQ(packed.at.awaited_history[0].token, 3);
  EXPECT_EQ(packed.at.awaited_history[0].sample, 0);
  EXPECT_EQ(packed.shape.history_entries, 4);
  EXPECT_EQ(sampling.rows()[2].history_count, 4);
  // The draw is that of the place after the awaited token.
  EXPECT_EQ(sampling.rows()[0].draw, PhiloxUniform(0, 2));
  EXPECT_EQ(sampling.rows()[1].draw, PhiloxUniform(0, 1));
}

// Every part written to its limit leaves all others as they are.
TEST(GpuStep, PartsDoNotOverlap) {
  const GpuStepLayout layout(kStepLimits);
  std::vector<std::byte> memory(static_cast<size_t>(layout.bytes()));
  const GpuStepMemory at = layout.At(memory.data());
  const auto span = [](auto* first, int64_t count) {
    return std::pair(reinterpret_cast<std::byte*>(first), reinterpret_cast<std::byte*>(first + count));
  };
  const std::pair<std::byte*, std::byte*> parts[] = {
      span(at.tokens, 400), span(at.positions, 400), span(at.slots, 400), span(at.sequences, 6),
      span(at.decodes, 6), span(at.tiles, 400 * 2 / 128 + 6), span(at.logit_rows, 6),
      span(at.sample_rows, 6), span(at.awaited, 6), span(at.awaited_history, 6),
      span(at.block_table, 201), span(at.biases, layout.biases_max()),
      span(at.history, layout.history_max()), span(at.masks, 6 * 2)};
  for (size_t i = 0; i + 1 < std::size(parts); ++i) EXPECT_LE(parts[i].second, parts[i + 1].first);
  EXPECT_LE(parts[13].second, memory.data() + memory.size());
}

TEST(GpuSampling, TakesNoMoreThanThereIsMemoryFor) {
  GpuSampling sampling(2, 5, 1, 50);
  const SamplingParams penalises{.presence_penalty = 1.0f};
  const SamplingParams biased{.logit_bias = {{1, 1.0f}, {2, 1.0f}}};
  const std::vector<int32_t> history = {1, 2, 3};
  EXPECT_TRUE(sampling.Add({.sampling = &penalises, .history = history, .prompt_length = 2}, 0));
  EXPECT_FALSE(sampling.Add({.sampling = &penalises, .history = history}, 1));
  EXPECT_FALSE(sampling.Add({.sampling = &biased}, 1));
  EXPECT_TRUE(sampling.Add({}, 1));
  EXPECT_FALSE(sampling.Add({}, 2));
  EXPECT_EQ(sampling.rows()[0].history_count, 3);
  EXPECT_EQ(sampling.rows()[0].prompt_count, 2);
  EXPECT_EQ(sampling.rows()[1].temperature, 0.0f);
  sampling.Clear();
  EXPECT_TRUE(sampling.Add({.sampling = &penalises, .history = history}, 0));
}

}  // namespace
}  // namespace penstock::engine
