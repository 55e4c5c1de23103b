// y = W x for one to four tokens: a decode step's projections, where all the
// time goes into reading W once.
//
// A warp owns two rows of W and walks along them, 16 bytes a lane, so that the
// warp reads 512 neighbouring bytes of each row in a turn; turns are unrolled by
// four, which keeps 8 loads of 16 bytes under way in every thread. With 2,048
// threads on a multiprocessor that is up to 256 KiB, several times what it takes
// to cover the latency of memory (about 30 KiB on an H200: 4.3 TB/s * 0.9 us over
// 132 multiprocessors). W is read past the first-level cache; x is small, every
// warp reads all of it, and it stays there.
//
// A lane adds up its own columns and the lanes are added at the end, in an order
// that does not depend on how many tokens there are: a token's result is the
// same in a batch of one and of four.
//
// Expected: 85 % of memory bandwidth from 30 MB on, less for smaller matrices,
// which are over before all multiprocessors have begun.
#include "backend-engine/kernels/cuda/cuda_kernels.h"
#include "backend-engine/kernels/cuda/load_kernels.h"
#include "backend-engine/kernels/cuda/numbers.cuh"
#include "backend-engine/kernels/cuda/silu.cuh"

namespace penstock::engine::cuda {
namespace {

constexpr int kWarps = 8;
constexpr int kThreads = kWarps * kWarpSize;
constexpr int kRows = 2;  // Of a warp.

__device__ __forceinline__ float Dot(const float (&a)[kVector], const float (&b)[kVector],
                                     float sum) {
#pragma unroll
  for (int i = 0; i < kVector; ++i) sum += a[i] * b[i];
  return sum;
}

// sums[r][t] = weight row rows[r] times x[t], on every lane.
template <int kTokens>
__device__ __forceinline__ void DotRows(const GemvCall& call, const int (&rows)[kRows], int lane,
                                        float (&sums)[kRows][kTokens]) {
  const int vectors = call.cols / kVector;
  const auto* x = reinterpret_cast<const uint4*>(call.x);
  const auto* weight = reinterpret_cast<const uint4*>(call.weight);
  const uint4* of_row[kRows];
#pragma unroll
  for (int r = 0; r < kRows; ++r) of_row[r] = weight + int64_t{rows[r]} * vectors;
#pragma unroll 4
  for (int at = lane; at < vectors; at += kWarpSize) {
    float w[kRows][kVector];
#pragma unroll
    for (int r = 0; r < kRows; ++r) Widen(LoadOnce(of_row[r] + at), w[r]);
#pragma unroll
    for (int t = 0; t < kTokens; ++t) {
      float numbers[kVector];
      Widen(x[t * vectors + at], numbers);
#pragma unroll
      for (int r = 0; r < kRows; ++r) sums[r][t] = Dot(w[r], numbers, sums[r][t]);
    }
  }
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
#pragma unroll
    for (int t = 0; t < kTokens; ++t) sums[r][t] = ReduceLanes(sums[r][t], Plus());
  }
}

// Warp n of the grid: rows 2n and 2n + 1.
template <int kTokens>
__global__ void __launch_bounds__(kThreads) GemvKernel(GemvCall call) {
  const int warp = threadIdx.x / kWarpSize, lane = threadIdx.x % kWarpSize;
  const int first = (blockIdx.x * kWarps + warp) * kRows;
  if (first >= call.rows) return;  // The whole warp.
  // The last warp of an odd number of rows computes one of them twice.
  const int rows[kRows] = {first, first + 1 < call.rows ? first + 1 : first};
  float sums[kRows][kTokens] = {};
  DotRows<kTokens>(call, rows, lane, sums);
#pragma unroll
  for (int n = 0; n < kRows * kTokens; ++n) {
    const int r = n / kTokens, t = n % kTokens;
    if (lane != n || first + r >= call.rows) continue;
    const float bias = call.bias != nullptr ? WidenBf16(call.bias[first + r]) : 0.0f;
    const float sum = sums[r][t] + bias;
    const int64_t at = int64_t{t} * call.rows + first + r;
    if (call.y != nullptr) {
      call.y[at] = NarrowToBf16(sum);
    } else {
      call.y_float[at] = sum;
    }
  }
}

// Warp n of the grid: row n of the gate and row n of up, and the gating.
template <int kTokens>
__global__ void __launch_bounds__(kThreads) GemvSiluMulKernel(GemvCall call) {
  const int warp = threadIdx.x / kWarpSize, lane = threadIdx.x % kWarpSize;
  const int width = call.rows / 2;
  const int row = blockIdx.x * kWarps + warp;
  if (row >= width) return;  // The whole warp.
  const int rows[kRows] = {row, width + row};
  float sums[kRows][kTokens] = {};
  DotRows<kTokens>(call, rows, lane, sums);
#pragma unroll
  for (int t = 0; t < kTokens; ++t) {
    if (lane != t) continue;
    const bool biased = call.bias != nullptr;
    const float gate = sums[0][t] + (biased ? WidenBf16(call.bias[row]) : 0.0f);
    const float up = sums[1][t] + (biased ? WidenBf16(call.bias[width + row]) : 0.0f);
    call.y[int64_t{t} * width + row] = NarrowToBf16(Silu(gate) * up);
  }
}

bool Takes(const GemvCall& call) {
  return call.token_count >= 1 && call.token_count <= kGemvTokensMax && call.rows > 0 &&
         call.cols > 0 && call.cols % kVector == 0;
}

}  // namespace

GpuError Gemv(const GemvCall& call, Stream stream) {
  if (!Takes(call) || (call.y == nullptr) == (call.y_float == nullptr)) return kGpuInvalid;
  static_assert(kGemvTokensMax == 4);
  void (*const kernels[])(GemvCall) = {GemvKernel<1>, GemvKernel<2>, GemvKernel<3>, GemvKernel<4>};
  const dim3 grid(DivideUp(call.rows, kWarps * kRows));
  return Launch(kernels[call.token_count - 1], grid, kThreads, 0, stream, call);
}

GpuError GemvSiluMul(const GemvCall& call, Stream stream) {
  if (!Takes(call) || call.y == nullptr || call.rows % 2 != 0) return kGpuInvalid;
  void (*const kernels[])(GemvCall) = {GemvSiluMulKernel<1>, GemvSiluMulKernel<2>,
                                       GemvSiluMulKernel<3>, GemvSiluMulKernel<4>};
  const dim3 grid(DivideUp(call.rows / 2, kWarps));
  return Launch(kernels[call.token_count - 1], grid, kThreads, 0, stream, call);
}

GpuError LoadGemv() {
  return LoadKernels(GemvKernel<1>, GemvKernel<2>, GemvKernel<3>, GemvKernel<4>,
                     GemvSiluMulKernel<1>, GemvSiluMulKernel<2>, GemvSiluMulKernel<3>,
                     GemvSiluMulKernel<4>);
}

}  // namespace penstock::engine::cuda
