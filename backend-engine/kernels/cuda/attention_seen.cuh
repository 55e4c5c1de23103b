// What some query heads have seen of some keys, and how that grows: the
// arithmetic of decode attention (attention_decode.cuh), 8 numbers of a head a lane.
#pragma once

#include "backend-engine/kernels/cuda/attention.cuh"
#include "backend-engine/kernels/cuda/numbers.cuh"

namespace penstock::engine::cuda {

constexpr int kDecodeReads = 4;  // Keys that a lane has under way.

// What `kGroup` query heads have seen of some keys; 8 numbers of each head.
template <int kGroup>
struct Seen {
  float largest[kGroup];       // Score, times log2(e).
  float weights[kGroup];       // Sum of 2^(score - largest).
  float out[kGroup][kVector];  // Sum of values times their weights.
};

// Brings what was seen to a new largest score.
template <int kGroup>
__device__ __forceinline__ void Rescale(Seen<kGroup>& seen, int head, float largest) {
  const float factor = exp2f(seen.largest[head] - largest);
  seen.largest[head] = largest;
  seen.weights[head] *= factor;
#pragma unroll
  for (int i = 0; i < kVector; ++i) seen.out[head][i] *= factor;
}

// Adds kDecodeReads keys and values; those of `count` and beyond are not there.
template <int kDim, int kGroup>
__device__ __forceinline__ void AddKeys(const float (&query)[kGroup][kVector],
                                        const uint4 (&keys)[kDecodeReads],
                                        const uint4 (&values)[kDecodeReads], int count,
                                        Seen<kGroup>& seen) {
  float scores[kDecodeReads][kGroup];
#pragma unroll
  for (int j = 0; j < kDecodeReads; ++j) {
    float key[kVector];
    Widen(keys[j], key);
#pragma unroll
    for (int g = 0; g < kGroup; ++g) {
      float dot = 0.0f;
#pragma unroll
      for (int i = 0; i < kVector; ++i) dot += query[g][i] * key[i];
      scores[j][g] = ReduceLanes<kDim / kVector>(dot, Plus());
    }
  }
#pragma unroll
  for (int g = 0; g < kGroup; ++g) {
    float largest = seen.largest[g];
#pragma unroll
    for (int j = 0; j < kDecodeReads; ++j) {
      if (j < count) largest = Larger()(largest, scores[j][g]);
    }
    Rescale(seen, g, largest);
#pragma unroll
    for (int j = 0; j < kDecodeReads; ++j) {
      scores[j][g] = j < count ? exp2f(scores[j][g] - largest) : 0.0f;
      seen.weights[g] += scores[j][g];
    }
  }
#pragma unroll
  for (int j = 0; j < kDecodeReads; ++j) {
    float value[kVector];
    Widen(values[j], value);
#pragma unroll
    for (int g = 0; g < kGroup; ++g) {
#pragma unroll
      for (int i = 0; i < kVector; ++i) seen.out[g][i] += scores[j][g] * value[i];
    }
  }
}

// Joins what the lanes that hold the same 8 numbers have seen of different keys.
template <int kDim, int kGroup>
__device__ __forceinline__ void JoinWarp(Seen<kGroup>& seen) {
#pragma unroll
  for (int distance = kDim / kVector; distance < kWarpSize; distance *= 2) {
#pragma unroll
    for (int g = 0; g < kGroup; ++g) {
      const float other = __shfl_xor_sync(kWholeWarp, seen.largest[g], distance);
      Rescale(seen, g, Larger()(seen.largest[g], other));
      seen.weights[g] += __shfl_xor_sync(kWholeWarp, seen.weights[g], distance);
#pragma unroll
      for (int i = 0; i < kVector; ++i) {
        seen.out[g][i] += __shfl_xor_sync(kWholeWarp, seen.out[g][i], distance);
      }
    }
  }
}

}  // namespace penstock::engine::cuda
