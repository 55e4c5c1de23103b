#include <cmath>

#include "backend-engine/kernels/ref/ops.h"

namespace penstock::engine::reference {

void RmsNorm(const RmsNormArgs& args) {
  for (int64_t t = 0; t < args.token_count; ++t) {
    float* residual = args.residual + t * args.width;
    double squares = 0;
    for (int64_t i = 0; i < args.width; ++i) {
      if (args.x != nullptr) residual[i] += args.x[t * args.width + i];
      squares += static_cast<double>(residual[i]) * residual[i];
    }
    const double factor = 1.0 / std::sqrt(squares / static_cast<double>(args.width) + args.eps);
    for (int64_t i = 0; i < args.width; ++i) {
      args.out[t * args.width + i] =
          static_cast<float>(residual[i] * factor) * args.weight[i];
    }
  }
}

}  // namespace penstock::engine::reference
