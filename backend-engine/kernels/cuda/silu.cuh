// The gate of the MLP, shared by its own kernel and the GEMV that ends with it.
#pragma once

#include "backend-engine/kernels/cuda/simt.h"

namespace penstock::engine::cuda {

// x / (1 + e^-x). For x below -88 e^-x is infinite and the result -0, as it should.
__device__ __forceinline__ float Silu(float x) { return x / (1.0f + expf(-x)); }

}  // namespace penstock::engine::cuda
