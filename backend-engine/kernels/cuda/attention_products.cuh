// The two products of prefill attention and the softmax between them, as a warp
// does them on tiles in shared memory (attention_prefill.cuh tells the idea).
#pragma once

#include "backend-engine/kernels/cuda/attention_tiles.cuh"
#include "backend-engine/kernels/cuda/numbers.cuh"

namespace penstock::engine::cuda {

using Scores = float[kRowTiles][kKeyTiles][4];

// scores = queries of this warp times the tile's keys.
template <int kDim>
__device__ __forceinline__ void Score(Bf16* queries, Bf16* keys, int warp, int lane,
                                      Scores& scores) {
  const int matrix = lane / 8, row = lane % 8;
#pragma unroll
  for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
    for (int n = 0; n < kKeyTiles; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) scores[m][n][i] = 0.0f;
    }
  }
#pragma unroll
  for (int step = 0; step < kDim / 16; ++step) {
    uint32_t a[kRowTiles][4];
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m) {
      const int first = (warp * kRowTiles + m) * kMmaRows;
      LoadMatrices(a[m], Piece<kDim>(queries, first + matrix % 2 * 8 + row,
                                     2 * step + matrix / 2));
    }
#pragma unroll
    for (int pair = 0; pair < kKeyTiles / 2; ++pair) {
      uint32_t b[4];
      LoadMatrices(b, Piece<kDim>(keys, pair * 16 + matrix / 2 * 8 + row, 2 * step + matrix % 2));
#pragma unroll
      for (int m = 0; m < kRowTiles; ++m) {
        MultiplyAdd(scores[m][2 * pair], a[m], b[0], b[1]);
        MultiplyAdd(scores[m][2 * pair + 1], a[m], b[2], b[3]);
      }
    }
  }
}

// A lane's running figures: of rows lane / 4 and lane / 4 + 8 of each row tile.
template <int kDim>
struct Running {
  float largest[kRowTiles][2];
  float weights[kRowTiles][2];
  float out[kRowTiles][kDim / 8][4];
};

template <int kDim>
__device__ __forceinline__ void Begin(const PrefillBlock& block, int warp, int lane,
                                      int (&position)[kRowTiles][2], Running<kDim>& running) {
#pragma unroll
  for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int row = (warp * kRowTiles + m) * kMmaRows + h * 8 + lane / 4;
      position[m][h] = block.sequence.start + block.TokenOf(row);
      running.largest[m][h] = kLowest;
      running.weights[m][h] = 0.0f;
    }
#pragma unroll
    for (int n = 0; n < kDim / 8; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) running.out[m][n][i] = 0.0f;
    }
  }
}

// Scores become weights; keys after a row's own position are left out.
// `position[m][h]`: of the row. `first`: the tile's first key.
template <int kDim>
__device__ __forceinline__ void Softmax(const int (&position)[kRowTiles][2], int first, int lane,
                                        float scale, Scores& scores, Running<kDim>& running) {
#pragma unroll
  for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      float largest = running.largest[m][h];
#pragma unroll
      for (int n = 0; n < kKeyTiles; ++n) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const int key = first + n * 8 + lane % 4 * 2 + i;
          float& score = scores[m][n][2 * h + i];
          score = key <= position[m][h] ? score * scale : kLowest;
          largest = Larger()(largest, score);
        }
      }
      // The four lanes of a row.
      largest = ReduceLanes<4>(largest, Larger());
      const float factor = exp2f(running.largest[m][h] - largest);
      running.largest[m][h] = largest;
      float sum = 0.0f;
#pragma unroll
      for (int n = 0; n < kKeyTiles; ++n) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          float& score = scores[m][n][2 * h + i];
          score = exp2f(score - largest);
          sum += score;
        }
      }
      running.weights[m][h] = running.weights[m][h] * factor + sum;
#pragma unroll
      for (int n = 0; n < kDim / 8; ++n) {
        running.out[m][n][2 * h] *= factor;
        running.out[m][n][2 * h + 1] *= factor;
      }
    }
  }
}

// out += weights times the tile's values.
template <int kDim>
__device__ __forceinline__ void AddValues(Bf16* values, int lane, const Scores& scores,
                                          Running<kDim>& running) {
  const int matrix = lane / 8, row = lane % 8;
#pragma unroll
  for (int step = 0; step < kPrefillKeys / 16; ++step) {
    uint32_t a[kRowTiles][4];
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m) {
      const auto& left = scores[m][2 * step];
      const auto& right = scores[m][2 * step + 1];
      a[m][0] = PackBf16(left[0], left[1]);
      a[m][1] = PackBf16(left[2], left[3]);
      a[m][2] = PackBf16(right[0], right[1]);
      a[m][3] = PackBf16(right[2], right[3]);
    }
#pragma unroll
    for (int pair = 0; pair < kDim / 16; ++pair) {
      uint32_t b[4];
      LoadTransposed(b, Piece<kDim>(values, step * 16 + matrix % 2 * 8 + row,
                                    2 * pair + matrix / 2));
#pragma unroll
      for (int m = 0; m < kRowTiles; ++m) {
        MultiplyAdd(running.out[m][2 * pair], a[m], b[0], b[1]);
        MultiplyAdd(running.out[m][2 * pair + 1], a[m], b[2], b[3]);
      }
    }
  }
}

// out[row] = what was summed, divided by the sum of weights.
template <int kDim>
__device__ __forceinline__ void Store(const AttentionCall& call, const PrefillBlock& block,
                                      int warp, int lane, const Running<kDim>& running) {
#pragma unroll
  for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const float sum = ReduceLanes<4>(running.weights[m][h], Plus());
      const int row = (warp * kRowTiles + m) * kMmaRows + h * 8 + lane / 4;
      if (!block.Has(row)) continue;
      const float factor = 1.0f / sum;
      const int64_t token = block.sequence.first_token + block.TokenOf(row);
      Bf16* to = call.out + (token * call.heads + block.HeadOf(row)) * kDim + lane % 4 * 2;
#pragma unroll
      for (int n = 0; n < kDim / 8; ++n) {
        *reinterpret_cast<uint32_t*>(to + n * 8) = PackBf16(
            running.out[m][n][2 * h] * factor, running.out[m][n][2 * h + 1] * factor);
      }
    }
  }
}

}  // namespace penstock::engine::cuda
