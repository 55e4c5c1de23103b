// Decode attention: one query a sequence against all of its cached keys.
//
// All the time goes into reading keys and values once, so each context is cut
// into splits that different multiprocessors read, and all query heads that
// share a KV head are answered by the same read:
//
//   block (split, KV head and chunk of its query heads, sequence): 4 warps, each
//     with every fourth tile of the split's keys;
//   warp: head_dim / 8 lanes share a key, 8 numbers (16 bytes) a lane, so 32
//     lanes read 2 keys of 128 (or 4 of 64) numbers at once; a tile is 4 such
//     reads, of keys and values alike, all under way together: 128 bytes in every
//     thread, 32 to 64 KiB on a multiprocessor, which covers memory's latency.
//
// Each lane's share of a key's group keeps its own running maximum and sums (the
// usual online softmax, in powers of two), joined at the end: across the warp,
// then across the block, and across splits by AttentionMerge. Where splits is 1
// the block writes the answer itself.
//
// Expected: 4.0 TB/s and more on an H200 from 64 sequences of 8k tokens on. The
// arithmetic of a group of 8 heads is about 0.8 of what hides behind the reads.
#pragma once

#include "backend-engine/kernels/cuda/attention.cuh"
#include "backend-engine/kernels/cuda/attention_seen.cuh"
#include "backend-engine/kernels/cuda/cuda_kernels.h"
#include "backend-engine/kernels/cuda/numbers.cuh"

namespace penstock::engine::cuda {

constexpr int kDecodeWarps = 4;
constexpr int kDecodeThreads = kDecodeWarps * kWarpSize;

// What a block of the grid (splits, kv_heads * chunks, decode_count) has to do;
// chunks are of at most kGroup of the query heads of a KV head.
struct DecodeBlock {
  GpuSequence sequence;
  int kv_head, first_head, heads;
  int begin, end;  // Keys.
};

template <int kGroup>
__device__ __forceinline__ DecodeBlock ThisDecodeBlock(const AttentionCall& call, int step) {
  const int group = call.heads / call.kv_heads;
  const int chunks = (group + kGroup - 1) / kGroup;
  const int kv_head = blockIdx.y / chunks, first = blockIdx.y % chunks * kGroup;
  const GpuSequence sequence = call.sequences[call.decodes[blockIdx.z]];
  const int length = sequence.start + 1;
  // Splits are whole steps of a block, so that its warps' reads begin together.
  const int steps = (length + step - 1) / step;
  const int each = (steps + gridDim.x - 1) / gridDim.x * step;
  const int begin = blockIdx.x * each;
  return {sequence, kv_head, kv_head * group + first, min(kGroup, group - first), begin,
          min(length, begin + each)};
}

// A lane's 8 numbers of each query head, scaled; nothing seen yet.
template <int kDim, int kGroup>
__device__ __forceinline__ void Begin(const AttentionCall& call, const DecodeBlock& block,
                                      int lane, float (&query)[kGroup][kVector],
                                      Seen<kGroup>& seen) {
  const int64_t row = int64_t{block.sequence.first_token} * (call.heads + 2 * call.kv_heads);
#pragma unroll
  for (int g = 0; g < kGroup; ++g) {
    // Heads that are not there repeat the last one; nobody reads their result.
    const int head = block.first_head + min(g, block.heads - 1);
    LoadBf16(call.qkv + (row + head) * kDim + lane % (kDim / kVector) * kVector, query[g]);
#pragma unroll
    for (int i = 0; i < kVector; ++i) {
      query[g][i] *= call.scale * kLog2E;
      seen.out[g][i] = 0.0f;
    }
    seen.largest[g] = kLowest;
    seen.weights[g] = 0.0f;
  }
}

// The warps meet in shared memory; then a thread finishes some numbers of a head.
template <int kDim, int kGroup>
__device__ __forceinline__ void JoinBlock(const AttentionCall& call, const DecodeBlock& block,
                                          int warp, int lane, const Seen<kGroup>& seen) {
  __shared__ float outs[kDecodeWarps][kGroup][kDim];
  __shared__ float largests[kDecodeWarps][kGroup], sums[kDecodeWarps][kGroup];
  if (lane < kDim / kVector) {
#pragma unroll
    for (int g = 0; g < kGroup; ++g) {
#pragma unroll
      for (int i = 0; i < kVector; ++i) outs[warp][g][lane * kVector + i] = seen.out[g][i];
      largests[warp][g] = seen.largest[g];
      sums[warp][g] = seen.weights[g];
    }
  }
  __syncthreads();
  for (int item = threadIdx.x; item < block.heads * kDim; item += kDecodeThreads) {
    const int g = item / kDim, i = item % kDim;
    float largest = kLowest, sum = 0.0f, out = 0.0f;
#pragma unroll
    for (int w = 0; w < kDecodeWarps; ++w) largest = Larger()(largest, largests[w][g]);
#pragma unroll
    for (int w = 0; w < kDecodeWarps; ++w) {
      const float factor = exp2f(largests[w][g] - largest);
      sum += sums[w][g] * factor;
      out += outs[w][g][i] * factor;
    }
    const int head = block.first_head + g;
    if (gridDim.x == 1) {
      const int64_t to = (int64_t{block.sequence.first_token} * call.heads + head) * kDim + i;
      call.out[to] = NarrowToBf16(out / sum);
      continue;
    }
    const int64_t part = (int64_t{blockIdx.z} * call.heads + head) * gridDim.x + blockIdx.x;
    call.partial[part * kDim + i] = out;
    if (i == 0) {
      call.partial_stats[part * 2] = largest;
      call.partial_stats[part * 2 + 1] = sum;
    }
  }
}

template <int kDim, int kGroup>
__global__ void __launch_bounds__(kDecodeThreads, kGroup > 4 ? 2 : 4)
    AttentionDecodeKernel(AttentionCall call, BlockSize block_size) {
  constexpr int kLanes = kDim / kVector;           // That share a key.
  constexpr int kKeys = kWarpSize / kLanes;        // That a warp reads at once.
  constexpr int kTile = kKeys * kDecodeReads;      // A warp's keys of one turn.
  constexpr int kStep = kTile * kDecodeWarps;      // The block's.
  const int warp = threadIdx.x / kWarpSize, lane = threadIdx.x % kWarpSize;
  const DecodeBlock block = ThisDecodeBlock<kGroup>(call, kStep);
  float query[kGroup][kVector];
  Seen<kGroup> seen;
  Begin<kDim, kGroup>(call, block, lane, query, seen);
  const int32_t* blocks = call.block_table + block.sequence.first_block;
  for (int tile = block.begin + warp * kTile; tile < block.end; tile += kStep) {
    uint4 keys[kDecodeReads], values[kDecodeReads];
    int count = 0;
#pragma unroll
    for (int j = 0; j < kDecodeReads; ++j) {
      const int position = tile + j * kKeys + lane / kLanes;
      keys[j] = values[j] = uint4{0, 0, 0, 0};
      if (position >= block.end) continue;
      count = j + 1;
      const int64_t at =
          KvOffset(blocks, position, block_size, call.kv_heads, block.kv_head, kDim) +
          lane % kLanes * kVector;
      keys[j] = LoadOnce(reinterpret_cast<const uint4*>(call.keys + at));
      values[j] = LoadOnce(reinterpret_cast<const uint4*>(call.values + at));
    }
    AddKeys<kDim, kGroup>(query, keys, values, count, seen);
  }
  JoinWarp<kDim, kGroup>(seen);
  JoinBlock<kDim, kGroup>(call, block, warp, lane, seen);
}

template <int kDim, int kGroup>
GpuError LaunchDecode(const AttentionCall& call, Stream stream) {
  const int chunks = DivideUp(call.heads / call.kv_heads, kGroup);
  const dim3 grid(call.splits, call.kv_heads * chunks, call.decode_count);
  return Launch(AttentionDecodeKernel<kDim, kGroup>, grid, kDecodeThreads, 0, stream, call,
                BlockSize(call.block_tokens));
}

// The smallest kernel that holds the group; larger groups take several chunks.
template <int kDim>
GpuError LaunchDecodeOfDim(const AttentionCall& call, Stream stream) {
  const int group = call.heads / call.kv_heads;
  if (group == 1) return LaunchDecode<kDim, 1>(call, stream);
  if (group == 2) return LaunchDecode<kDim, 2>(call, stream);
  if (group <= 4) return LaunchDecode<kDim, 4>(call, stream);
  return LaunchDecode<kDim, 8>(call, stream);
}

GpuError AttentionDecode64(const AttentionCall& call, Stream stream);
GpuError AttentionDecode128(const AttentionCall& call, Stream stream);

}  // namespace penstock::engine::cuda
