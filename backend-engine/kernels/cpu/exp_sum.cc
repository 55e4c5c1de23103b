#include "backend-engine/kernels/cpu/ops.h"
#include "backend-engine/kernels/cpu/simd.h"

namespace penstock::engine::PENSTOCK_LEVEL {

double ExpSum(const float* row, int64_t count, float max, float scale, float* out) {
  constexpr int64_t kRun = 64 * kLanes;  // Summed in float; runs are summed in double.
  double total = 0;
  int64_t i = 0;
  while (i + kLanes <= count) {
    const int64_t end = i + kRun < count ? i + kRun : count;
    Vec sum = {};
    for (; i + kLanes <= end; i += kLanes) {
      const Vec value = Exp((Load(row + i) - max) * scale);
      if (out != nullptr) Store(out + i, value);
      sum += value;
    }
    total += static_cast<double>(Sum(sum));
  }
  for (; i < count; ++i) {
    const float value = Exp(Splat((row[i] - max) * scale))[0];
    if (out != nullptr) out[i] = value;
    total += static_cast<double>(value);
  }
  return total;
}

}  // namespace penstock::engine::PENSTOCK_LEVEL
