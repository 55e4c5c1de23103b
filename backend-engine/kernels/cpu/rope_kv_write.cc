#include "backend-engine/kernels/cpu/ops.h"
#include "backend-engine/kernels/cpu/simd.h"

namespace penstock::engine::PENSTOCK_LEVEL {
namespace {

void Turn(float* head, int64_t half, const float* cosines, const float* sines) {
  int64_t i = 0;
  for (; i + kLanes <= half; i += kLanes) {
    const Vec a = Load(head + i);
    const Vec b = Load(head + half + i);
    Store(head + i, a * Load(cosines + i) - b * Load(sines + i));
    Store(head + half + i, b * Load(cosines + i) + a * Load(sines + i));
  }
  for (; i < half; ++i) {
    const float a = head[i];
    const float b = head[half + i];
    head[i] = a * cosines[i] - b * sines[i];
    head[half + i] = b * cosines[i] + a * sines[i];
  }
}

void Write(std::byte* cache, DType dtype, int64_t index, const float* from, int64_t count) {
  int64_t i = 0;
  if (dtype == DType::kF32) {
    float* to = reinterpret_cast<float*>(cache) + index;
    for (; i + kLanes <= count; i += kLanes) Store(to + i, Load(from + i));
    for (; i < count; ++i) to[i] = from[i];
    return;
  }
  uint16_t* to = reinterpret_cast<uint16_t*>(cache) + index;
  for (; i + kLanes <= count; i += kLanes) StoreBf16(to + i, Load(from + i));
  for (; i < count; ++i) to[i] = RoundToBf16(from[i]);
}

}  // namespace

void RopeKvWrite(const RopeKvWriteArgs& args) {
  const KvLayer& kv = args.kv;
  const int64_t dim = kv.head_dim;
  const int64_t row = (args.heads + 2 * static_cast<int64_t>(kv.kv_heads)) * dim;
  for (int64_t t = 0; t < args.token_count; ++t) {
    const int64_t angle = args.positions[t] * (dim / 2);
    float* heads = args.qkv + t * row;
    for (int64_t head = 0; head < args.heads + kv.kv_heads; ++head) {
      Turn(heads + head * dim, dim / 2, args.cosines + angle, args.sines + angle);
    }
    const int64_t block = args.slots[t] / kv.block_tokens;
    const int64_t offset = args.slots[t] % kv.block_tokens;
    const float* keys = heads + args.heads * dim;
    const float* values = keys + kv.kv_heads * dim;
    for (int64_t head = 0; head < kv.kv_heads; ++head) {
      const int64_t index = ((block * kv.kv_heads + head) * kv.block_tokens + offset) * dim;
      Write(kv.keys, kv.dtype, index, keys + head * dim, dim);
      Write(kv.values, kv.dtype, index, values + head * dim, dim);
    }
  }
}

}  // namespace penstock::engine::PENSTOCK_LEVEL
