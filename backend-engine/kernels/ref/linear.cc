#include "backend-engine/kernels/ref/ops.h"

namespace penstock::engine::reference {

void Linear(const LinearArgs& args) {
  const Matrix& weight = args.weight;
  for (int64_t t = 0; t < args.token_count; ++t) {
    for (int64_t row = 0; row < weight.rows; ++row) {
      double sum = args.bias != nullptr ? args.bias[row] : 0.0;
      for (int64_t col = 0; col < weight.cols; ++col) {
        float x = args.x[t * weight.cols + col];
        if (weight.dtype == DType::kBf16) x = FloatFromBf16(Bf16FromFloat(x));
        sum += static_cast<double>(ElementAt(weight, row, col)) * x;
      }
      args.y[t * weight.rows + row] = static_cast<float>(sum);
    }
  }
}

}  // namespace penstock::engine::reference
