#include "backend-engine/kernels/matrix.h"

#include <gtest/gtest.h>

#include <vector>

namespace penstock::engine {
namespace {

TEST(Matrices, PanelsHoldEveryElementOnceAndPaddingIsZero) {
  for (const DType dtype : {DType::kF32, DType::kBf16, DType::kF16}) {
    const int64_t rows = 19, cols = 5;
    std::vector<std::byte> bytes(static_cast<size_t>(MatrixBytes(dtype, rows, cols)));
    Matrix matrix{dtype, rows, cols, bytes.data()};
    std::vector<float> row(static_cast<size_t>(cols));
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < cols; ++c) {
        row[static_cast<size_t>(c)] = static_cast<float>(r * cols + c + 1);
      }
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
