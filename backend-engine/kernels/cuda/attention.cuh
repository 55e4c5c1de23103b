// What both attention kernels share: where a key lies in the paged cache.
#pragma once

#include "backend-engine/kernels/cuda/simt.h"

namespace penstock::engine::cuda {

constexpr float kLog2E = 1.4426950408889634f;
constexpr float kLowest = -1e30f;  // Below any score; a difference of two is no NaN.

// Tokens of a KV block, a power of two, so that no kernel divides by it.
struct BlockSize {
  int shift = 0, mask = 0;
  explicit BlockSize(int block_tokens) : mask(block_tokens - 1) {
    while ((1 << shift) < block_tokens) ++shift;
  }
};
constexpr bool IsPowerOfTwo(int value) { return value > 0 && (value & (value - 1)) == 0; }

// The first number of the key (or value) at `position`, in numbers.
__device__ __forceinline__ int64_t KvOffset(const int32_t* blocks, int position,
                                            const BlockSize& size, int kv_heads, int kv_head,
                                            int head_dim) {
  const int64_t block = blocks[position >> size.shift];
  return (((block * kv_heads + kv_head) << size.shift) + (position & size.mask)) * head_dim;
}

}  // namespace penstock::engine::cuda
