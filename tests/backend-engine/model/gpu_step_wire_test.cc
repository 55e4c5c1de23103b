// Steps between processes: what arrives is what was sent, and whatever number of it
// is changed on the way, no step gets through that a GPU must not see.
#include "backend-engine/model/gpu_step_wire.h"

#include <gtest/gtest.h>

#include <cstring>
#include <random>

#include "tests/backend-engine/model/gpu_step_fixture.h"

namespace penstock::engine {
namespace {

struct Packed : PackedStep {
  Packed(const StepPlan& plan, int32_t bucket) : PackedStep(plan, bucket) {
    WriteStep(layout, shape, memory.data(), wire);
  }
  std::vector<std::byte> wire;
};

// What is read from `wire`, and its shape and memory; empty `error`: it was taken.
struct Got {
  explicit Got(std::span<const std::byte> wire)
      : layout(kStepLimits), memory(static_cast<size_t>(layout.bytes()), std::byte{0xee}) {
    ReadStep(layout, wire, memory.data(), shape, error);
  }
  GpuStepLayout layout;
  std::vector<std::byte> memory;
  GpuStepShape shape;
  std::string error;
};

TEST(GpuStepWire, WhatIsReadIsWhatWasPacked) {
  for (const auto& [plan, bucket] : {std::pair{MixedPlan(2), 0}, {DecodePlan(), 5}}) {
    const Packed packed(plan, bucket);
    EXPECT_LE(packed.wire.size(), StepWireBytesMax(packed.layout));
    const Got got(packed.wire);
    ASSERT_EQ(got.error, "");
    EXPECT_EQ(got.shape.tokens, packed.shape.tokens);
    EXPECT_EQ(got.shape.rows, packed.shape.rows);
    EXPECT_EQ(got.shape.decodes, packed.shape.decodes);
    EXPECT_EQ(got.shape.tiles, packed.shape.tiles);
    EXPECT_EQ(got.shape.bucket, packed.shape.bucket);
    EXPECT_EQ(got.shape.picks, packed.shape.picks);
    EXPECT_EQ(got.shape.awaited, packed.shape.awaited);
    EXPECT_EQ(got.shape.awaited_rows, plan.sequences[0].awaited + 1);
    EXPECT_EQ(got.shape.awaited_history, 0);
    // Read again, it is written as it was.
    std::vector<std::byte> again;
    WriteStep(got.layout, got.shape, const_cast<std::byte*>(got.memory.data()), again);
    EXPECT_EQ(again, packed.wire);
  }
}

TEST(GpuStepWire, AStepThatIsCutOrHasMoreBehindItIsRefused) {
  std::vector<std::byte> wire = Packed(MixedPlan(2), 0).wire;
  for (size_t size = 0; size < wire.size(); size += size < 200 ? 1 : 37) {
    EXPECT_NE(Got(std::span(wire).first(size)).error, "") << size;
  }
  wire.push_back(std::byte{0});
  EXPECT_NE(Got(wire).error.find("a step whose its size is"), std::string::npos) << Got(wire).error;
}

TEST(GpuStepWire, NumbersOutOfBoundsAreNamed) {
  const Packed packed(MixedPlan(2), 0);
  const auto error = [&](size_t at, int32_t value) {
    std::vector<std::byte> wire = packed.wire;
    std::memcpy(wire.data() + at, &value, sizeof value);
    return Got(wire).error;
  };
  constexpr size_t kCounts = 40;
  constexpr size_t kTokens = 132;
  EXPECT_EQ(error(0, 0), "a step whose tokens is 0, not 1 to 400");
  EXPECT_EQ(error(0, 401), "a step whose tokens is 401, not 1 to 400");
  EXPECT_EQ(error(20, 3), "a step whose a count of a padded step is 132, not 3 to 3");
  EXPECT_EQ(error(kCounts, 50), "a step whose a token is 50, not 0 to 49");
  EXPECT_EQ(error(kCounts, -1), "a step whose a token is -1, not 0 to 49");
  EXPECT_EQ(error(kCounts + 4 * kTokens, 400), "a step whose a position is 400, not 0 to 399");
  EXPECT_EQ(error(kCounts + 8 * kTokens, 201 * 4), "a step whose a slot is 804, not 0 to 803");
  const size_t sequences = kCounts + 16 * kTokens;
  EXPECT_EQ(error(sequences + 4, 133), "a step whose a sequence's tokens is 133, not 1 to 132");
  EXPECT_EQ(error(sequences + 8, 400), "a step whose a sequence's start is 400, not 0 to 399");
  EXPECT_EQ(error(sequences + 12, 36), "a step whose a sequence's first block is 36, not 0 to 34");
}

// What no reader sees as wrong must still be a step within the limits: a GPU's kernels
// look at nothing again. AddressSanitizer watches the writing of it.
TEST(GpuStepWire, WhateverIsChangedOnTheWayNothingOutOfBoundsGetsThrough) {
  const Packed packed(MixedPlan(2), 0);
  std::mt19937 random(17);
  int taken = 0;
  for (int turn = 0; turn < 20000; ++turn) {
    std::vector<std::byte> wire = packed.wire;
    const int changes = 1 + static_cast<int>(random() % 3);
    for (int change = 0; change < changes; ++change) {
      const size_t word = random() % (random() % 2 == 0 ? 10 : wire.size() / 4);
      const int32_t value = random() % 2 == 0 ? static_cast<int32_t>(random())
                                              : static_cast<int32_t>(random() % 300) - 20;
      std::memcpy(wire.data() + word * 4, &value, sizeof value);
    }
    const Got got(wire);
    if (!got.error.empty()) continue;
    ++taken;
    const GpuStepMemory at = got.layout.At(const_cast<std::byte*>(got.memory.data()));
    ASSERT_LE(got.shape.tokens, 400);
    for (int32_t i = 0; i < got.shape.tokens; ++i) {
      ASSERT_TRUE(at.tokens[i] >= 0 && at.tokens[i] < 50);
      ASSERT_TRUE(at.positions[i] >= 0 && at.positions[i] < 400);
      ASSERT_TRUE(at.slots[i] >= 0 && at.slots[i] < 201 * 4);
    }
    for (int32_t i = 0; i < got.shape.sequences; ++i) {
      const cuda::GpuSequence& sequence = at.sequences[i];
      ASSERT_TRUE(sequence.first_token >= 0 && sequence.token_count >= 1 &&
                  sequence.first_token + sequence.token_count <= got.shape.tokens);
      const int64_t end = int64_t{sequence.start} + sequence.token_count;
      ASSERT_TRUE(sequence.start >= 0 && end <= 400 && sequence.first_block >= 0 &&
                  sequence.first_block + (end + 3) / 4 <= got.shape.table_entries);
    }
    for (int64_t i = 0; i < got.shape.table_entries; ++i) {
      ASSERT_TRUE(at.block_table[i] >= 0 && at.block_table[i] <= 200);
    }
    for (int32_t i = 0; i < got.shape.tiles; ++i) {
      ASSERT_TRUE(at.tiles[i].sequence >= 0 && at.tiles[i].sequence < got.shape.sequences);
      ASSERT_TRUE(at.tiles[i].first_row >= 0 &&
                  at.tiles[i].first_row < at.sequences[at.tiles[i].sequence].token_count * 2);
    }
    for (int32_t i = 0; i < got.shape.decodes; ++i) {
      ASSERT_TRUE(at.decodes[i] >= 0 && at.decodes[i] < got.shape.sequences);
    }
    for (int32_t i = 0; i < got.shape.rows; ++i) {
      ASSERT_TRUE(at.logit_rows[i] >= 0 && at.logit_rows[i] < got.shape.tokens);
    }
    for (int32_t i = 0; i < got.shape.awaited; ++i) {
      ASSERT_TRUE(at.awaited[i].token >= 0 && at.awaited[i].token < got.shape.tokens);
      ASSERT_TRUE(at.awaited[i].sample >= 0 && at.awaited[i].sample < 6);
    }
  }
  EXPECT_GT(taken, 100);  // Some changes are none that matter.
}

}  // namespace
}  // namespace penstock::engine
