// A weight matrix in the layout that the CPU kernels stream: panels of 16 rows
// (16 outputs), inside a panel column after column, so that one vector load
// holds one column of 16 rows and no sum ever crosses vector lanes.
//
//   float32, float16   [rows/16][cols][16]
//   bfloat16           [rows/16][cols/2][16][2]    two columns side by side, as
//                                                  the dot product of pairs wants them
//
// Rows are padded to 16 and columns to 2 with zeros. The bytes belong to
// whoever loaded the weights.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "backend-engine/kernels/dtype.h"

namespace penstock::engine {

inline constexpr int64_t kPanelRows = 16;

struct Matrix {
  DType dtype = DType::kF32;
  int64_t rows = 0;  // Outputs.
  int64_t cols = 0;  // Inputs.
  std::byte* data = nullptr;  // 64-byte aligned.
};

constexpr int64_t PaddedCols(DType dtype, int64_t cols) {
  return dtype == DType::kBf16 ? (cols + 1) / 2 * 2 : cols;
}

// Bytes from one panel to the next.
constexpr int64_t PanelBytes(DType dtype, int64_t cols) {
  return PaddedCols(dtype, cols) * kPanelRows * static_cast<int64_t>(SizeOf(dtype));
}

constexpr int64_t MatrixBytes(DType dtype, int64_t rows, int64_t cols) {
  return (rows + kPanelRows - 1) / kPanelRows * PanelBytes(dtype, cols);
}

// Where the element lies, in elements from the start of data.
constexpr int64_t ElementIndex(const Matrix& matrix, int64_t row, int64_t col) {
  const int64_t panel = row / kPanelRows * kPanelRows * PaddedCols(matrix.dtype, matrix.cols);
  const int64_t lane = row % kPanelRows;
  if (matrix.dtype == DType::kBf16) return panel + (col / 2 * kPanelRows + lane) * 2 + col % 2;
  return panel + col * kPanelRows + lane;
}

inline float ElementAt(const Matrix& matrix, int64_t row, int64_t col) {
  const std::byte* at = matrix.data + ElementIndex(matrix, row, col) *
                                          static_cast<int64_t>(SizeOf(matrix.dtype));
  if (matrix.dtype == DType::kF32) {
    float value;
    std::memcpy(&value, at, sizeof value);
    return value;
  }
  uint16_t bits;
  std::memcpy(&bits, at, sizeof bits);
  return matrix.dtype == DType::kBf16 ? FloatFromBf16(bits) : FloatFromF16(bits);
}

// Converts `cols` numbers (of any alignment) to matrix.dtype and puts them into
// a row. REQUIRES: data was zero before the first row was set.
void SetRow(Matrix& matrix, int64_t row, const std::byte* source, DType source_dtype);

// Converts `count` numbers of any alignment to fp32.
void ToFloat(const std::byte* source, DType source_dtype, int64_t count, float* out);

}  // namespace penstock::engine
