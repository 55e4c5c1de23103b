#include <cmath>

#include "backend-engine/kernels/ref/ops.h"

namespace penstock::engine::reference {

double ExpSum(const float* row, int64_t count, float max, float scale, float* out) {
  double sum = 0;
  for (int64_t i = 0; i < count; ++i) {
    const double value = std::exp((static_cast<double>(row[i]) - max) * scale);
    if (out != nullptr) out[i] = static_cast<float>(value);
    sum += value;
  }
  return sum;
}

}  // namespace penstock::engine::reference
