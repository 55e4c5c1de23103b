// RMSNorm of one row by one block, the row staying in registers between the sum
// and the scaling; shared by the plain kernel and the one that sums over ranks.
#pragma once

#include "backend-engine/kernels/cuda/cuda_kernels.h"
#include "backend-engine/kernels/cuda/numbers.cuh"

namespace penstock::engine::cuda {

constexpr int kNormVectorsMax = 4;  // A thread's share of a row, in vectors.
static_assert(kRmsNormWidthMax == kBlockThreadsMax * kNormVectorsMax * kVector);

// Just enough whole warps for a row.
inline int NormThreads(int width) {
  const int whole_warps = DivideUp(width / kVector, kWarpSize) * kWarpSize;
  return whole_warps < kBlockThreadsMax ? whole_warps : kBlockThreadsMax;
}
inline bool NormTakes(const RmsNormCall& call) {
  return call.token_count >= 0 && call.width > 0 && call.width <= kRmsNormWidthMax &&
         call.width % kVector == 0;
}

// `load(at, numbers)`: the 8 numbers of the row's x from column `at` on.
template <typename Load>
__device__ __forceinline__ void NormRow(const RmsNormCall& call, int64_t token,
                                        const Load& load) {
  const int vectors = call.width / kVector;
  const int64_t row = token * call.width;
  const int thread = threadIdx.x, threads = blockDim.x;
  float share[kNormVectorsMax][kVector];
  float sum = 0.0f;
#pragma unroll
  for (int n = 0; n < kNormVectorsMax; ++n) {
    const int at = (n * threads + thread) * kVector;
    if (at < vectors * kVector) {
      load(at, share[n]);
      if (!call.starts) {
        float old[kVector];
        LoadFloats(call.residual + row + at, old);
#pragma unroll
        for (int i = 0; i < kVector; ++i) share[n][i] += old[i];
      }
      StoreFloats(call.residual + row + at, share[n]);
#pragma unroll
      for (int i = 0; i < kVector; ++i) sum += share[n][i] * share[n][i];
    }
  }
  const float mean = ReduceBlock(sum, 0.0f, Plus()) / static_cast<float>(call.width);
  const float factor = rsqrtf(mean + call.epsilon);
#pragma unroll
  for (int n = 0; n < kNormVectorsMax; ++n) {
    const int at = (n * threads + thread) * kVector;
    if (at < vectors * kVector) {
      float weight[kVector];
      LoadFloats(call.weight + at, weight);
#pragma unroll
      for (int i = 0; i < kVector; ++i) share[n][i] *= factor * weight[i];
      StoreBf16(call.out + row + at, share[n]);
    }
  }
}

}  // namespace penstock::engine::cuda
