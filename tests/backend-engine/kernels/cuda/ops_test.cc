// The GPU's kernels, from the very sources that nvcc compiles, on the emulated
// GPU: every operation against its plain twin, with the threads of a block in
// several orders, so that a missing barrier shows.
#include <gtest/gtest.h>

#include <random>

#include "backend-engine/kernels/cuda/emulated/machine.h"
#include "backend-engine/kernels/cuda/load_kernels.h"
#include "tests/gpu/op_checks.h"

namespace penstock::engine {
namespace {

class KernelsOnTheEmulatedGpu : public ::testing::TestWithParam<unsigned> {
 protected:
  void SetUp() override {
    emulated::SetThreadOrder(GetParam());
    EXPECT_EQ(cuda::LoadEveryKernel(), cuda::kGpuOk);
  }
  void TearDown() override {
    emulated::SetThreadOrder(0);
    EXPECT_EQ(emulated::LaunchedUnloaded(), 0) << "load_kernels.cu does not load a kernel";
    EXPECT_FALSE(checks_.results().empty());
    for (const CheckResult& result : checks_.results()) {
      EXPECT_TRUE(result.passed()) << result.op << ", " << result.shape << ": error "
                                   << result.error << ", allowed " << result.allowed;
    }
  }
  Checks checks_{20240607, false};
};

TEST_P(KernelsOnTheEmulatedGpu, EmbedCopiesRowsOrWritesZeros) { checks_.Embed(); }
TEST_P(KernelsOnTheEmulatedGpu, RmsNormAddsThenNormalises) { checks_.RmsNorm(); }
TEST_P(KernelsOnTheEmulatedGpu, GemvIsTheMatrixProduct) { checks_.Gemv(); }
TEST_P(KernelsOnTheEmulatedGpu, GemmIsTheMatrixProduct) { checks_.Gemm(); }
TEST_P(KernelsOnTheEmulatedGpu, RopeTurnsAndWritesTheCache) { checks_.RopeKvWrite(); }
TEST_P(KernelsOnTheEmulatedGpu, DecodeAttentionIsAttention) { checks_.AttentionDecode(); }
TEST_P(KernelsOnTheEmulatedGpu, PrefillAttentionIsAttention) { checks_.AttentionPrefill(); }
TEST_P(KernelsOnTheEmulatedGpu, SiluMulGates) { checks_.SiluMul(); }
TEST_P(KernelsOnTheEmulatedGpu, GatherRowsGathers) { checks_.GatherRows(); }
TEST_P(KernelsOnTheEmulatedGpu, SampleChoosesWhatTheSamplerChooses) { checks_.Sample(); }
TEST_P(KernelsOnTheEmulatedGpu, LogitsThatAreNotFiniteGiveNoToken) { checks_.SampleSpoiled(); }
TEST_P(KernelsOnTheEmulatedGpu, WhatAKernelDoesNotTakeIsRefused) { checks_.Refusals(); }

// Ascending, descending, shuffled.
INSTANTIATE_TEST_SUITE_P(ThreadOrders, KernelsOnTheEmulatedGpu, ::testing::Values(0u, 1u, 7u));

}  // namespace
}  // namespace penstock::engine
