#include "backend-engine/kernels/cpu/ops.h"
#include "backend-engine/kernels/cpu/simd.h"

namespace penstock::engine::PENSTOCK_LEVEL {
namespace {

// Adds x where there is one, and returns the sum of the squares.
float AddAndSquare(const float* x, float* residual, int64_t width) {
  if (x != nullptr) Add(x, width, residual);
  Vec squares = {};
  int64_t i = 0;
  for (; i + kLanes <= width; i += kLanes) {
    const Vec value = Load(residual + i);
    squares += value * value;
  }
  float sum = Sum(squares);
  for (; i < width; ++i) sum += residual[i] * residual[i];
  return sum;
}

}  // namespace

void RmsNorm(const RmsNormArgs& args) {
  for (int64_t t = 0; t < args.token_count; ++t) {
    float* residual = args.residual + t * args.width;
    const float* x = args.x == nullptr ? nullptr : args.x + t * args.width;
    float* out = args.out + t * args.width;
    const float mean = AddAndSquare(x, residual, args.width) / static_cast<float>(args.width);
    const float factor = 1.0f / __builtin_sqrtf(mean + args.eps);
    int64_t i = 0;
    for (; i + kLanes <= args.width; i += kLanes) {
      Store(out + i, Load(residual + i) * factor * Load(args.weight + i));
    }
    for (; i < args.width; ++i) out[i] = residual[i] * factor * args.weight[i];
  }
}

}  // namespace penstock::engine::PENSTOCK_LEVEL
