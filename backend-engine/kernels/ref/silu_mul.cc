#include <cmath>

#include "backend-engine/kernels/ref/ops.h"

namespace penstock::engine::reference {

void SiluMul(const SiluMulArgs& args) {
  for (int64_t t = 0; t < args.token_count; ++t) {
    const float* gate = args.gate_up + t * 2 * args.width;
    const float* up = gate + args.width;
    for (int64_t i = 0; i < args.width; ++i) {
      const double x = gate[i];
      args.out[t * args.width + i] = static_cast<float>(x / (1.0 + std::exp(-x)) * up[i]);
    }
  }
}

}  // namespace penstock::engine::reference
