#include "backend-engine/kernels/dtype.h"

#include <gtest/gtest.h>

#include <cmath>

namespace penstock::engine {
namespace {

TEST(DTypes, EveryHalfNumberSurvivesTheWayThroughFloat) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const auto half = static_cast<uint16_t>(bits);
    const float f16 = FloatFromF16(half);
    const float bf16 = FloatFromBf16(half);
    if (std::isnan(f16)) {
      EXPECT_TRUE(std::isnan(FloatFromF16(F16FromFloat(f16))));
    } else {
      ASSERT_EQ(F16FromFloat(f16), half);
    }
    if (std::isnan(bf16)) {
      EXPECT_TRUE(std::isnan(FloatFromBf16(Bf16FromFloat(bf16))));
    } else {
      ASSERT_EQ(Bf16FromFloat(bf16), half);
    }
  }
}

TEST(DTypes, RoundingGoesToTheNearestAndTiesToEven) {
  EXPECT_EQ(FloatFromBf16(Bf16FromFloat(1.0f + 0x1p-8f)), 1.0f);
  EXPECT_EQ(FloatFromBf16(Bf16FromFloat(1.0f + 3 * 0x1p-8f)), 1.0f + 0x1p-6f);
  EXPECT_EQ(FloatFromBf16(Bf16FromFloat(1.0f + 0x1.1p-8f)), 1.0f + 0x1p-7f);
  EXPECT_EQ(FloatFromF16(F16FromFloat(1.0f + 0x1p-11f)), 1.0f);
  EXPECT_EQ(FloatFromF16(F16FromFloat(1.0f + 3 * 0x1p-11f)), 1.0f + 0x1p-9f);
  EXPECT_TRUE(std::isinf(FloatFromF16(F16FromFloat(65520.0f))));
  EXPECT_EQ(FloatFromF16(F16FromFloat(65519.0f)), 65504.0f);
}

}  // namespace
}  // namespace penstock::engine
