// Matrices for the plain twins, made of bf16 numbers that lie row by row.
#pragma once

#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "backend-engine/kernels/kernels.h"

namespace penstock::engine {

class PlainMatrix {
 public:
  PlainMatrix(const std::vector<uint16_t>& numbers, int64_t rows, int64_t cols)
      : bytes_(static_cast<std::byte*>(std::aligned_alloc(64, Size(rows, cols))), &std::free) {
    std::memset(bytes_.get(), 0, Size(rows, cols));
    matrix_ = {.dtype = DType::kBf16, .rows = rows, .cols = cols, .data = bytes_.get()};
    for (int64_t row = 0; row < rows; ++row) {
      SetRow(matrix_, row, reinterpret_cast<const std::byte*>(numbers.data() + row * cols),
             DType::kBf16);
    }
  }
  const Matrix& matrix() const { return matrix_; }

 private:
  static size_t Size(int64_t rows, int64_t cols) {
    return static_cast<size_t>((MatrixBytes(DType::kBf16, rows, cols) + 63) / 64 * 64);
  }
  std::unique_ptr<std::byte, void (*)(void*)> bytes_;
  Matrix matrix_;
};

// want[t][r] = bias[r] + weight[r] . x[t], summed in double.
inline void PlainLinear(const std::vector<uint16_t>& weight, const std::vector<uint16_t>& x,
                        const std::vector<uint16_t>* bias, int32_t tokens, int32_t rows,
                        int32_t cols, std::vector<float>& want) {
  for (int32_t t = 0; t < tokens; ++t) {
    for (int32_t r = 0; r < rows; ++r) {
      const uint16_t* w = weight.data() + static_cast<size_t>(r) * static_cast<size_t>(cols);
      const uint16_t* v = x.data() + static_cast<size_t>(t) * static_cast<size_t>(cols);
      double sum = bias != nullptr ? FloatFromBf16((*bias)[static_cast<size_t>(r)]) : 0.0;
      for (int32_t c = 0; c < cols; ++c) {
        sum += static_cast<double>(FloatFromBf16(w[c])) * FloatFromBf16(v[c]);
      }
      want[static_cast<size_t>(t) * static_cast<size_t>(rows) + static_cast<size_t>(r)] =
          static_cast<float>(sum);
    }
  }
}

}  // namespace penstock::engine
