// Rotary positions for queries and keys, and keys and values into the paged
// cache. One block a token: an item is 8 pairs of one head (16 bytes of its
// first half and 16 of its second), and threads walk over the items of all
// heads. Bound by memory, and small: 12 KB a token for 32 + 2 * 8 heads of 128.
#include "backend-engine/kernels/cuda/cuda_kernels.h"
#include "backend-engine/kernels/cuda/load_kernels.h"
#include "backend-engine/kernels/cuda/numbers.cuh"

namespace penstock::engine::cuda {
namespace {

constexpr int kThreads = 256;

// Item i of a token: pairs [8p, 8p + 8) of head h, with p = i % (dim / 16), h = i / (dim / 16).
__global__ void __launch_bounds__(kThreads) RopeKvWriteKernel(RopeKvWriteCall call) {
  const int64_t token = blockIdx.x;
  const int dim = call.head_dim, half = dim / 2;
  const int items_of_head = half / kVector;
  const int all_heads = call.heads + 2 * call.kv_heads;
  const int64_t angle = int64_t{call.positions[token]} * half;
  const int64_t block = call.slots[token] / call.block_tokens;
  const int64_t offset = call.slots[token] % call.block_tokens;
  for (int item = threadIdx.x; item < all_heads * items_of_head; item += kThreads) {
    const int head = item / items_of_head, pair = item % items_of_head * kVector;
    Bf16* from = call.qkv + (token * all_heads + head) * dim + pair;
    float a[kVector], b[kVector];
    LoadBf16(from, a);
    LoadBf16(from + half, b);
    if (head < call.heads + call.kv_heads) {
      float cosine[kVector], sine[kVector];
      LoadFloats(call.cosines + angle + pair, cosine);
      LoadFloats(call.sines + angle + pair, sine);
#pragma unroll
      for (int i = 0; i < kVector; ++i) {
        const float turned = a[i] * cosine[i] - b[i] * sine[i];
        b[i] = b[i] * cosine[i] + a[i] * sine[i];
        a[i] = turned;
      }
    }
    Bf16* to = from;
    if (head >= call.heads) {
      const bool is_key = head < call.heads + call.kv_heads;
      const int kv_head = head - call.heads - (is_key ? 0 : call.kv_heads);
      to = (is_key ? call.keys : call.values) +
           ((block * call.kv_heads + kv_head) * call.block_tokens + offset) * dim + pair;
    }
    StoreBf16(to, a);
    StoreBf16(to + half, b);
  }
}

}  // namespace

GpuError RopeKvWrite(const RopeKvWriteCall& call, Stream stream) {
  if (call.token_count < 0 || call.heads < 1 || call.kv_heads < 1 || call.block_tokens < 1 ||
      call.head_dim < 2 * kVector || call.head_dim % (2 * kVector) != 0) {
    return kGpuInvalid;
  }
  if (call.token_count == 0) return kGpuOk;
  return Launch(RopeKvWriteKernel, dim3(call.token_count), kThreads, 0, stream, call);
}

GpuError LoadRopeKvWrite() { return LoadKernels(RopeKvWriteKernel); }

}  // namespace penstock::engine::cuda
