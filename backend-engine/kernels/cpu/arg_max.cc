#include "backend-engine/kernels/cpu/ops.h"
#include "backend-engine/kernels/cpu/simd.h"

namespace penstock::engine::PENSTOCK_LEVEL {
namespace {

// x - x is 0 for finite numbers and NaN for all others; NaN then stays.
struct Extremes {
  float largest;
  bool finite;
};

Extremes Scan(const float* row, int64_t count) {
  Vec largest = Splat(-__builtin_inff());
  Vec poison = {};
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    const Vec value = Load(row + i);
    largest = Select(value > largest, value, largest);
    poison += value - value;
  }
  Extremes result{-__builtin_inff(), true};
  float rest = Sum(poison);
  for (int lane = 0; lane < kLanes; ++lane) {
    if (largest[lane] > result.largest) result.largest = largest[lane];
  }
  for (; i < count; ++i) {
    if (row[i] > result.largest) result.largest = row[i];
    rest += row[i] - row[i];
  }
  result.finite = rest == 0.0f;
  return result;
}

}  // namespace

ArgMaxResult ArgMax(const float* row, int64_t count) {
  const Extremes extremes = Scan(row, count);
  ArgMaxResult result{.index = -1, .value = extremes.largest, .finite = extremes.finite};
  for (int64_t i = 0; i < count; ++i) {
    if (row[i] == extremes.largest) {
      result.index = static_cast<int32_t>(i);
      break;
    }
  }
  return result;
}

}  // namespace penstock::engine::PENSTOCK_LEVEL
