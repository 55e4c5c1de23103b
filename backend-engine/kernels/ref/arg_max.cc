#include <cmath>

#include "backend-engine/kernels/ref/ops.h"

namespace penstock::engine::reference {

ArgMaxResult ArgMax(const float* row, int64_t count) {
  ArgMaxResult best{.index = -1, .value = -INFINITY, .finite = true};
  for (int64_t i = 0; i < count; ++i) {
    if (!std::isfinite(row[i])) best.finite = false;
    if (row[i] > best.value) {
      best.index = static_cast<int32_t>(i);
      best.value = row[i];
    }
  }
  return best;
}

}  // namespace penstock::engine::reference
