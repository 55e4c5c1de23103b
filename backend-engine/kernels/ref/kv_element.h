// One number of the paged cache, for the plain twins.
#pragma once

#include <cstring>

#include "backend-engine/kernels/kernels.h"

namespace penstock::engine::reference {

// Index of dimension `dim` of a head at `slot` = block * block_tokens + offset.
inline int64_t KvIndex(const KvLayer& kv, int64_t slot, int64_t kv_head, int64_t dim) {
  const int64_t block = slot / kv.block_tokens;
  const int64_t offset = slot % kv.block_tokens;
  return ((block * kv.kv_heads + kv_head) * kv.block_tokens + offset) * kv.head_dim + dim;
}

inline float KvLoad(const std::byte* cache, DType dtype, int64_t index) {
  if (dtype == DType::kF32) {
    float value;
    std::memcpy(&value, cache + index * 4, sizeof value);
    return value;
  }
  uint16_t bits;
  std::memcpy(&bits, cache + index * 2, sizeof bits);
  return FloatFromBf16(bits);
}

inline void KvStore(std::byte* cache, DType dtype, int64_t index, float value) {
  if (dtype == DType::kF32) {
    std::memcpy(cache + index * 4, &value, sizeof value);
    return;
  }
  const uint16_t bits = Bf16FromFloat(value);
  std::memcpy(cache + index * 2, &bits, sizeof bits);
}

}  // namespace penstock::engine::reference
