// What a block of prefill attention has in shared memory, and how it comes there
// (attention_prefill.cuh tells the idea).
#pragma once

#include "backend-engine/kernels/cuda/attention.cuh"
#include "backend-engine/kernels/cuda/cuda_kernels.h"
#include "backend-engine/kernels/cuda/numbers.cuh"

namespace penstock::engine::cuda {

constexpr int kPrefillWarps = 4;
constexpr int kPrefillThreads = kPrefillWarps * kWarpSize;
constexpr int kPrefillKeys = 64;                              // Of a tile.
constexpr int kMmaRows = 16;                                  // Of one product.
constexpr int kRowTiles = kPrefillRows / kPrefillWarps / kMmaRows;  // Of a warp: 2.
constexpr int kKeyTiles = kPrefillKeys / 8;
static_assert(kRowTiles * kPrefillWarps * kMmaRows == kPrefillRows);

// Where the 16-byte piece of a row lies in a tile of rows of kDim numbers.
template <int kDim>
__device__ __forceinline__ Bf16* Piece(Bf16* tile, int row, int piece) {
  return tile + row * kDim + (piece ^ (row % 8)) * kVector;
}

// Which queries a block has.
struct PrefillBlock {
  GpuSequence sequence;
  int first_row, kv_head, group;

  __device__ int TokenOf(int row) const {  // Rows past the end repeat the last token.
    return min((first_row + row) / group, sequence.token_count - 1);
  }
  __device__ int HeadOf(int row) const { return kv_head * group + (first_row + row) % group; }
  __device__ bool Has(int row) const { return (first_row + row) / group < sequence.token_count; }
};

// Queries into shared memory.
template <int kDim>
__device__ __forceinline__ void LoadQueries(const AttentionCall& call, const PrefillBlock& block,
                                            Bf16* queries) {
  constexpr int kPieces = kDim / kVector;
  const int64_t heads = call.heads + 2 * call.kv_heads;
  for (int item = threadIdx.x; item < kPrefillRows * kPieces; item += kPrefillThreads) {
    const int row = item / kPieces, piece = item % kPieces;
    const int64_t token = block.sequence.first_token + block.TokenOf(row);
    CopyAsync(Piece<kDim>(queries, row, piece),
              call.qkv + (token * heads + block.HeadOf(row)) * kDim + piece * kVector);
  }
}

// Keys and values [first, first + kPrefillKeys) into shared memory; zeros beyond
// `end`, because what lies there may be anything, and 0 * NaN is NaN.
template <int kDim>
__device__ __forceinline__ void LoadTile(const AttentionCall& call, const PrefillBlock& block,
                                         const BlockSize& size, int first, int end, Bf16* keys,
                                         Bf16* values) {
  constexpr int kPieces = kDim / kVector;
  const int32_t* blocks = call.block_table + block.sequence.first_block;
  for (int item = threadIdx.x; item < kPrefillKeys * kPieces; item += kPrefillThreads) {
    const int row = item / kPieces, piece = item % kPieces;
    Bf16* key = Piece<kDim>(keys, row, piece);
    Bf16* value = Piece<kDim>(values, row, piece);
    if (first + row < end) {
      const int64_t at =
          KvOffset(blocks, first + row, size, call.kv_heads, block.kv_head, kDim) +
          piece * kVector;
      CopyAsync(key, call.keys + at);
      CopyAsync(value, call.values + at);
    } else {
      *reinterpret_cast<uint4*>(key) = uint4{0, 0, 0, 0};
      *reinterpret_cast<uint4*>(value) = uint4{0, 0, 0, 0};
    }
  }
}

}  // namespace penstock::engine::cuda
