// Prefill attention: many queries of a sequence, causal, against the paged cache.
//
// A block takes 128 query rows and walks over the keys in tiles of 64. A row is
// one query head of one token, and all heads that share a KV head lie side by
// side (row r: token r / group, head r % group), so that a tile of keys is read
// once for all of them. Four warps have 32 rows each and do both products with
// the tensor cores (bf16 in, fp32 sums):
//
//     S = Q K^T   [32 x 64]       P = 2^(S - row maximum)       O += P V   [32 x dim]
//
// with the online softmax in registers; S becomes P's operand where it lies. The
// next tile's keys and values are copied in the background (cp.async) while this
// one is computed. In shared memory a row's 16-byte pieces are permuted by
// piece ^ (row % 8), so that the eight rows of an ldmatrix hit different banks.
//
// Expected: 300 to 350 TFLOP/s at long contexts on an H100/H200, limited by the
// rate of mma.sync there and by shared memory; wgmma would give twice that.
#pragma once

#include "backend-engine/kernels/cuda/attention_products.cuh"
#include "backend-engine/kernels/cuda/attention_tiles.cuh"
#include "backend-engine/kernels/cuda/cuda_kernels.h"
#include "backend-engine/kernels/cuda/numbers.cuh"

namespace penstock::engine::cuda {

template <int kDim>
constexpr size_t PrefillSharedBytes() {
  return (kPrefillRows + 4 * kPrefillKeys) * kDim * sizeof(Bf16);
}

// grid: (tiles, kv_heads).
template <int kDim>
__global__ void __launch_bounds__(kPrefillThreads)
    AttentionPrefillKernel(AttentionCall call, BlockSize size) {
  const int warp = threadIdx.x / kWarpSize, lane = threadIdx.x % kWarpSize;
  const PrefillTile tile = call.tiles[blockIdx.x];
  const PrefillBlock block{call.sequences[tile.sequence], tile.first_row,
                           static_cast<int>(blockIdx.y), call.heads / call.kv_heads};
  auto* queries = reinterpret_cast<Bf16*>(DynamicShared());
  Bf16* keys[2] = {queries + kPrefillRows * kDim,
                   queries + (kPrefillRows + kPrefillKeys) * kDim};
  Bf16* values[2] = {keys[1] + kPrefillKeys * kDim, keys[1] + 2 * kPrefillKeys * kDim};
  const int end = block.sequence.start + block.TokenOf(kPrefillRows - 1) + 1;
  const int tile_count = (end + kPrefillKeys - 1) / kPrefillKeys;

  int position[kRowTiles][2];
  Running<kDim> running;
  Begin<kDim>(block, warp, lane, position, running);
  LoadQueries<kDim>(call, block, queries);
  LoadTile<kDim>(call, block, size, 0, end, keys[0], values[0]);
  CommitCopies();
  for (int n = 0; n < tile_count; ++n) {
    const int now = n % 2;
    if (n + 1 < tile_count) {
      LoadTile<kDim>(call, block, size, (n + 1) * kPrefillKeys, end, keys[1 - now],
                     values[1 - now]);
    }
    CommitCopies();
    WaitForCopies<1>();
    __syncthreads();  // Everybody's copies of tile n are there.
    Scores scores;
    Score<kDim>(queries, keys[now], warp, lane, scores);
    Softmax<kDim>(position, n * kPrefillKeys, lane, call.scale * kLog2E, scores, running);
    AddValues<kDim>(values[now], lane, scores, running);
    __syncthreads();  // Everybody has read tile n: its place may be written again.
  }
  Store<kDim>(call, block, warp, lane, running);
}

template <int kDim>
GpuError LaunchPrefill(const AttentionCall& call, Stream stream) {
  const dim3 grid(call.tile_count, call.kv_heads);
  return Launch(AttentionPrefillKernel<kDim>, grid, kPrefillThreads, PrefillSharedBytes<kDim>(),
                stream, call, BlockSize(call.block_tokens));
}

GpuError AttentionPrefill64(const AttentionCall& call, Stream stream);
GpuError AttentionPrefill128(const AttentionCall& call, Stream stream);

}  // namespace penstock::engine::cuda
