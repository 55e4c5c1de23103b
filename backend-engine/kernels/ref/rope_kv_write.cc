#include "backend-engine/kernels/ref/kv_element.h"
#include "backend-engine/kernels/ref/ops.h"

namespace penstock::engine::reference {
namespace {

void Turn(float* head, int64_t head_dim, const float* cosines, const float* sines) {
  const int64_t half = head_dim / 2;
  for (int64_t i = 0; i < half; ++i) {
    const float a = head[i];
    const float b = head[half + i];
    head[i] = a * cosines[i] - b * sines[i];
    head[half + i] = b * cosines[i] + a * sines[i];
  }
}

}  // namespace

void RopeKvWrite(const RopeKvWriteArgs& args) {
  const KvLayer& kv = args.kv;
  const int64_t row = (args.heads + 2 * static_cast<int64_t>(kv.kv_heads)) * kv.head_dim;
  for (int64_t t = 0; t < args.token_count; ++t) {
    const int64_t angle = static_cast<int64_t>(args.positions[t]) * (kv.head_dim / 2);
    float* heads = args.qkv + t * row;
    for (int64_t head = 0; head < args.heads + kv.kv_heads; ++head) {
      Turn(heads + head * kv.head_dim, kv.head_dim, args.cosines + angle, args.sines + angle);
    }
    const float* keys = heads + static_cast<int64_t>(args.heads) * kv.head_dim;
    const float* values = keys + static_cast<int64_t>(kv.kv_heads) * kv.head_dim;
    for (int64_t head = 0; head < kv.kv_heads; ++head) {
      for (int64_t i = 0; i < kv.head_dim; ++i) {
        const int64_t index = KvIndex(kv, args.slots[t], head, i);
        KvStore(kv.keys, kv.dtype, index, keys[head * kv.head_dim + i]);
        KvStore(kv.values, kv.dtype, index, values[head * kv.head_dim + i]);
      }
    }
  }
}

}  // namespace penstock::engine::reference
