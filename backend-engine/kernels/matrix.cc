#include "backend-engine/kernels/matrix.h"

namespace penstock::engine {
namespace {

float ReadFloat(const std::byte* source, DType dtype, int64_t index) {
  if (dtype == DType::kF32) {
    float value;
    std::memcpy(&value, source + index * 4, sizeof value);
    return value;
  }
  uint16_t bits;
  std::memcpy(&bits, source + index * 2, sizeof bits);
  return dtype == DType::kBf16 ? FloatFromBf16(bits) : FloatFromF16(bits);
}

// The common case, without a conversion: pairs of columns move as one word.
void CopyBf16Row(Matrix& matrix, int64_t row, const std::byte* source) {
  std::byte* out = matrix.data + ElementIndex(matrix, row, 0) * 2;
  const int64_t pairs = matrix.cols / 2;
  for (int64_t pair = 0; pair < pairs; ++pair) {
    std::memcpy(out + pair * kPanelRows * 4, source + pair * 4, 4);
  }
  if (matrix.cols % 2 != 0) std::memcpy(out + pairs * kPanelRows * 4, source + pairs * 4, 2);
}

}  // namespace

void SetRow(Matrix& matrix, int64_t row, const std::byte* source, DType source_dtype) {
  if (matrix.dtype == DType::kBf16 && source_dtype == DType::kBf16) {
    CopyBf16Row(matrix, row, source);
    return;
  }
  for (int64_t col = 0; col < matrix.cols; ++col) {
    const float value = ReadFloat(source, source_dtype, col);
    const int64_t index = ElementIndex(matrix, row, col);
    if (matrix.dtype == DType::kF32) {
      std::memcpy(matrix.data + index * 4, &value, sizeof value);
    } else {
      const uint16_t bits =
          matrix.dtype == DType::kBf16 ? Bf16FromFloat(value) : F16FromFloat(value);
      std::memcpy(matrix.data + index * 2, &bits, sizeof bits);
    }
  }
}

void ToFloat(const std::byte* source, DType source_dtype, int64_t count, float* out) {
  for (int64_t i = 0; i < count; ++i) out[i] = ReadFloat(source, source_dtype, i);
}

}  // namespace penstock::engine
