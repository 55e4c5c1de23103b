// The doors to attention, and the kernel that joins the splits of a context:
// each split gives its largest score m, the sum l of its weights and the sum of
// values o, both relative to m; the answer is
//     sum over splits of o * 2^(m - M)  /  sum of l * 2^(m - M),   M the largest m.
// A split that had no keys has m = kLowest and l = 0, and counts for nothing.
#include "backend-engine/kernels/cuda/attention_decode.cuh"
#include "backend-engine/kernels/cuda/attention_prefill.cuh"
#include "backend-engine/kernels/cuda/load_kernels.h"

namespace penstock::engine::cuda {
namespace {

// Block (head, sequence). A thread has the statistics of some splits, then a number
// of the head: all reads of a turn are under way together, as their latency is what
// this kernel takes.
__global__ void __launch_bounds__(128) AttentionMergeKernel(AttentionCall call) {
  __shared__ float factors[kAttentionSplitsMax];
  const int head = blockIdx.x, threads = blockDim.x;
  const int64_t first = (int64_t{blockIdx.y} * call.heads + head) * call.splits;
  const float* stats = call.partial_stats + first * 2;
  float largest = kLowest;
  for (int split = threadIdx.x; split < call.splits; split += threads) {
    largest = Larger()(largest, stats[split * 2]);
  }
  largest = ReduceBlock(largest, kLowest, Larger());
  float sum = 0.0f;
  int used = 0;  // Splits after the last one with keys are not read.
  for (int split = threadIdx.x; split < call.splits; split += threads) {
    factors[split] = exp2f(stats[split * 2] - largest);
    sum += stats[split * 2 + 1] * factors[split];
    if (stats[split * 2 + 1] > 0.0f) used = split + 1;
  }
  sum = ReduceBlock(sum, 0.0f, Plus());
  used = ReduceBlock(used, 0, Larger());  // Everybody's factors are there, too.
  float out = 0.0f;
#pragma unroll 8
  for (int split = 0; split < used; ++split) {
    out += call.partial[(first + split) * call.head_dim + threadIdx.x] * factors[split];
  }
  const int64_t token = call.sequences[call.decodes[blockIdx.y]].first_token;
  call.out[(token * call.heads + head) * call.head_dim + threadIdx.x] = NarrowToBf16(out / sum);
}

bool Takes(const AttentionCall& call) {
  return call.heads > 0 && call.kv_heads > 0 && call.heads % call.kv_heads == 0 &&
         AttentionTakes(call.head_dim) && IsPowerOfTwo(call.block_tokens);
}

}  // namespace

GpuError AttentionDecode(const AttentionCall& call, Stream stream) {
  if (!Takes(call) || call.splits < 1 || call.splits > kAttentionSplitsMax ||
      call.decode_count < 0 || call.decode_count > kDecodesMax) {
    return kGpuInvalid;
  }
  if (call.decode_count == 0) return kGpuOk;
  const GpuError error =
      call.head_dim == 64 ? AttentionDecode64(call, stream) : AttentionDecode128(call, stream);
  if (error != kGpuOk || call.splits == 1) return error;
  const dim3 grid(call.heads, call.decode_count);
  return Launch(AttentionMergeKernel, grid, call.head_dim, 0, stream, call);
}

GpuError AttentionPrefill(const AttentionCall& call, Stream stream) {
  if (!Takes(call) || call.tile_count < 0) return kGpuInvalid;
  if (call.tile_count == 0) return kGpuOk;
  return call.head_dim == 64 ? AttentionPrefill64(call, stream)
                             : AttentionPrefill128(call, stream);
}

GpuError LoadAttentionMerge() { return LoadKernels(AttentionMergeKernel); }

}  // namespace penstock::engine::cuda
