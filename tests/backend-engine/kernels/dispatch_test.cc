#include "backend-engine/kernels/kernels.h"

#include <gtest/gtest.h>

namespace penstock::engine {
namespace {

TEST(Dispatch, PicksALevelThatThisMachineCanRun) {
  EXPECT_NE(KernelsAt(CpuLevel::kReference), nullptr);
  EXPECT_NE(KernelsAt(CpuLevel::kBaseline), nullptr);
  EXPECT_STRNE(BestKernels().name, "reference");
}

}  // namespace
}  // namespace penstock::engine
