// The gate of the MLP, shared by its own kernel and the GEMV that ends with it.
#pragma once

#include "backend-engine/kernels/cuda/simt.h"

namespace penstock::engine::cuda {

// x / (1 + e^-x). Below -88 it is nothing, and e^-x soon infinite: a gate that is -infinite,
// as a sum rounded to bf16 may be, would be divided by that, and be no number.
__device__ __forceinline__ float Silu(float x) {
  const float bounded = x < -88.0f ? -88.0f : x;  // NaN stays what it is.
  return bounded / (1.0f + expf(-bounded));
}

}  // namespace penstock::engine::cuda
