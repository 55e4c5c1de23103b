#include "backend-engine/exec/memory_plan.h"

#include <gtest/gtest.h>

namespace penstock::engine {
namespace {

constexpr int64_t kGiB = int64_t{1} << 30;

// Llama-3.1-8B in bf16 on an H200.
MemoryNeeds Llama() {
  return {.gpu = "GPU 0 (NVIDIA H200)", .free_bytes = 139 * kGiB, .total_bytes = 140 * kGiB,
          .weights = 15 * kGiB, .step = 2 * kGiB, .workspace = kGiB / 32, .graphs = true,
          .block_bytes = 2 << 20, .blocks_useful = 1 << 20};
}

TEST(MemoryPlan, TheKvCacheGetsWhatIsLeft) {
  MemoryPlan plan;
  std::string error;
  ASSERT_TRUE(PlanMemory(Llama(), plan, error)) << error;
  EXPECT_EQ(plan.peers, 0);
  const int64_t used = plan.weights + plan.step + plan.workspace + plan.graphs + plan.reserve +
                       plan.kv;
  EXPECT_LE(used, 139 * kGiB);
  EXPECT_GT(used, 139 * kGiB - (4 << 20));
  // One block more than the pool has is there for padding.
  EXPECT_EQ(plan.kv, (int64_t{plan.block_count} + 1) * (2 << 20));
}

TEST(MemoryPlan, RanksThatTalkKeepATwentiethForIt) {
  MemoryNeeds needs = Llama();
  needs.peers = true;
  MemoryPlan plan;
  std::string error;
  ASSERT_TRUE(PlanMemory(needs, plan, error)) << error;
  EXPECT_EQ(plan.peers, 139 * kGiB / 20);
}

TEST(MemoryPlan, RanksOnOneGpuShareIt) {
  MemoryNeeds needs = Llama();
  needs.ranks = 4;
  MemoryPlan plan;
  std::string error;
  ASSERT_TRUE(PlanMemory(needs, plan, error)) << error;
  EXPECT_EQ(plan.share, 139 * kGiB / 4);
}

TEST(MemoryPlan, NoMoreBlocksThanCouldBeInUseAndExactlyThoseAskedFor) {
  MemoryNeeds needs = Llama();
  needs.blocks_useful = 1000;
  MemoryPlan plan;
  std::string error;
  ASSERT_TRUE(PlanMemory(needs, plan, error));
  EXPECT_EQ(plan.block_count, 1000);
  needs.blocks_asked = 1234;
  ASSERT_TRUE(PlanMemory(needs, plan, error));
  EXPECT_EQ(plan.block_count, 1234);
}

TEST(MemoryPlan, LessThanFifteenPercentForTheKvCacheIsAnErrorUnlessThatIsAllThatHelps) {
  MemoryNeeds needs = Llama();
  needs.weights = 118 * kGiB;
  MemoryPlan plan;
  std::string error;
  EXPECT_FALSE(PlanMemory(needs, plan, error));
  EXPECT_EQ(error,
            "GPU 0 (NVIDIA H200): 139.00 of 140.00 GiB free; weights 118.00 + step 2.00 + matrix "
            "library 0.03 + communication 0.00 + graphs 0.25 + reserve 0.50 leaves 18.22 GiB for "
            "the KV cache, which needs at least 15 % (20.85); lower --step-tokens or "
            "--max-running, or split the model over more GPUs (--tensor-parallel)");
  needs.blocks_useful = 2000;
  EXPECT_TRUE(PlanMemory(needs, plan, error));
}

TEST(MemoryPlan, BlocksThatDoNotFitAreAnErrorWithTheArithmetic) {
  MemoryNeeds needs = Llama();
  needs.blocks_asked = 100000;
  MemoryPlan plan;
  std::string error;
  EXPECT_FALSE(PlanMemory(needs, plan, error));
  EXPECT_NE(error.find("100000 KV blocks need 195.31; lower --kv-blocks"), std::string::npos)
      << error;
}

TEST(MemoryPlan, WeightsThatDoNotFitAtAllAreAnError) {
  MemoryNeeds needs = Llama();
  needs.weights = 300 * kGiB;
  MemoryPlan plan;
  std::string error;
  EXPECT_FALSE(PlanMemory(needs, plan, error));
  EXPECT_NE(error.find("leaves 0.00 GiB"), std::string::npos) << error;
}

TEST(MemoryPlan, IsToldWithItsArithmetic) {
  MemoryNeeds needs = Llama();
  needs.ranks = 2;
  needs.blocks_asked = 511;
  MemoryPlan plan;
  std::string error;
  ASSERT_TRUE(PlanMemory(needs, plan, error)) << error;
  EXPECT_EQ(Text(needs, plan),
            "GPU 0 (NVIDIA H200): 139.00 of 140.00 GiB free, 69.50 for each of 2 ranks = weights "
            "15.00 + step 2.00 + matrix library 0.03 + communication 0.00 + graphs 0.25 + reserve "
            "0.50 + KV 1.00 (511 blocks) + unused 50.72");
}

}  // namespace
}  // namespace penstock::engine
