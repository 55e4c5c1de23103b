#include "backend-engine/kernels/ref/ops.h"

namespace penstock::engine::reference {

void Add(const float* x, int64_t count, float* sum) {
  for (int64_t i = 0; i < count; ++i) sum[i] += x[i];
}

}  // namespace penstock::engine::reference
