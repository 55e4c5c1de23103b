#include "backend-engine/kernels/cpu/ops.h"
#include "backend-engine/kernels/cpu/simd.h"

namespace penstock::engine::PENSTOCK_LEVEL {

void Add(const float* x, int64_t count, float* sum) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) Store(sum + i, Load(sum + i) + Load(x + i));
  for (; i < count; ++i) sum[i] += x[i];
}

}  // namespace penstock::engine::PENSTOCK_LEVEL
