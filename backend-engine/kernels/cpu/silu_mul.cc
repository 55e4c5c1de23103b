#include "backend-engine/kernels/cpu/ops.h"
#include "backend-engine/kernels/cpu/simd.h"

namespace penstock::engine::PENSTOCK_LEVEL {
namespace {

Vec Silu(Vec x) { return x / (Exp(-x) + 1.0f); }

}  // namespace

void SiluMul(const SiluMulArgs& args) {
  for (int64_t t = 0; t < args.token_count; ++t) {
    const float* gate = args.gate_up + t * 2 * args.width;
    const float* up = gate + args.width;
    float* out = args.out + t * args.width;
    int64_t i = 0;
    for (; i + kLanes <= args.width; i += kLanes) {
      Store(out + i, Silu(Load(gate + i)) * Load(up + i));
    }
    // The rest goes through the same vector function, so that a number's
    // result does not depend on where it stands.
    for (; i < args.width; ++i) out[i] = Silu(Splat(gate[i]))[0] * up[i];
  }
}

}  // namespace penstock::engine::PENSTOCK_LEVEL
