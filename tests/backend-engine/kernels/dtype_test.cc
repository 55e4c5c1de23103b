#include "backend-engine/kernels/dtype.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "backend-engine/kernels/matrix.h"

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

TEST(Matrices, PanelsHoldEveryElementOnceAndPaddingIsZero) {
  for (const DType dtype : {DType::kF32, DType::kBf16, DType::kF16}) {
    const int64_t rows = 19, cols = 5;
    std::vector<std::byte> bytes(static_cast<size_t>(MatrixBytes(dtype, rows, cols)));
    Matrix matrix{dtype, rows, cols, bytes.data()};
    std::vector<float> row(static_cast<size_t>(cols));
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < cols; ++c) row[static_cast<size_t>(c)] = static_cast<float>(r * cols + c + 1);
      SetRow(matrix, r, reinterpret_cast<const std::byte*>(row.data()), DType::kF32);
    }
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < cols; ++c) {
        ASSERT_EQ(ElementAt(matrix, r, c), static_cast<float>(r * cols + c + 1));
      }
    }
    size_t filled = 0;
    for (size_t i = 0; i < bytes.size(); i += SizeOf(dtype)) {
      bool zero = true;
      for (size_t b = 0; b < SizeOf(dtype); ++b) zero = zero && bytes[i + b] == std::byte{0};
      filled += zero ? 0 : 1;
    }
    EXPECT_EQ(filled, static_cast<size_t>(rows * cols)) << NameOf(dtype);
  }
}

TEST(Matrices, RowsOfTheSameFormatAreCopiedBitForBit) {
  const uint16_t source[5] = {0x3f80, 0x7fc1, 0x8001, 0xff80, 0x0001};
  std::vector<std::byte> bytes(static_cast<size_t>(MatrixBytes(DType::kBf16, 2, 5)));
  Matrix matrix{DType::kBf16, 2, 5, bytes.data()};
  SetRow(matrix, 1, reinterpret_cast<const std::byte*>(source), DType::kBf16);
  for (int64_t c = 0; c < 5; ++c) {
    uint16_t got;
    std::memcpy(&got, bytes.data() + ElementIndex(matrix, 1, c) * 2, 2);
    EXPECT_EQ(got, source[c]);
  }
}

}  // namespace
}  // namespace penstock::engine
