// RMSNorm with the residual addition in front of it, bf16 in and out, fp32 sums.
//
// The kernel is bound by memory: per element it must read x and the residual
// and write the residual and out, 8 bytes for ~4 flops. Hence
//   - one pass: a row stays in registers between the sum and the scaling, so
//     each byte crosses the bus once;
//   - 16-byte loads and stores, 8 bf16 each, neighbouring threads on
//     neighbouring vectors;
//   - one block a row with just enough threads for it, so that a decode step's
//     few rows still spread over as many SMs as there are rows;
//   - sums in fp32: warp shuffles, then every warp over the warps' sums.
#include "backend-engine/kernels/cuda/cuda_kernels.h"

namespace penstock::engine::cuda {
namespace {

constexpr int kWarp = 32;
constexpr int kThreadsMax = 1024;
constexpr int kVectorsMax = 4;  // A thread's share of a row, in vectors: kept in registers.

// 8 bf16 that move in one instruction.
struct alignas(16) Vector {
  static constexpr int kSize = 8;
  __nv_bfloat162 pair[kSize / 2];
};
static_assert(kRmsNormColumnsMax == kThreadsMax * kVectorsMax * Vector::kSize);

__device__ float SumOverWarp(float value) {
#pragma unroll
  for (int distance = kWarp / 2; distance > 0; distance /= 2) {
    value += __shfl_xor_sync(0xffffffffu, value, distance);
  }
  return value;
}

// The sum over the block, on every thread. REQUIRES: blockDim.x is whole warps.
__device__ float SumOverBlock(float value) {
  __shared__ float of_warp[kThreadsMax / kWarp];
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp, warps = blockDim.x / kWarp;
  value = SumOverWarp(value);
  if (lane == 0) of_warp[warp] = value;
  __syncthreads();
  // Every warp adds all the sums up: cheaper than a second barrier.
  return SumOverWarp(lane < warps ? of_warp[lane] : 0.0f);
}

__device__ float SumOfSquares(const Vector& vector) {
  float sum = 0.0f;
#pragma unroll
  for (int i = 0; i < Vector::kSize / 2; ++i) {
    const float2 value = __bfloat1622float2(vector.pair[i]);
    sum += value.x * value.x + value.y * value.y;
  }
  return sum;
}

__device__ Vector Add(const Vector& a, const Vector& b) {
  Vector sum;
#pragma unroll
  for (int i = 0; i < Vector::kSize / 2; ++i) {
    const float2 x = __bfloat1622float2(a.pair[i]), y = __bfloat1622float2(b.pair[i]);
    sum.pair[i] = __floats2bfloat162_rn(x.x + y.x, x.y + y.y);
  }
  return sum;
}

__device__ Vector Scale(const Vector& a, const Vector& weight, float factor) {
  Vector product;
#pragma unroll
  for (int i = 0; i < Vector::kSize / 2; ++i) {
    const float2 x = __bfloat1622float2(a.pair[i]), w = __bfloat1622float2(weight.pair[i]);
    product.pair[i] = __floats2bfloat162_rn(x.x * factor * w.x, x.y * factor * w.y);
  }
  return product;
}

// Block b norms row b. `vectors`: of one row. `out` may be `x`: a thread reads
// its share before it writes it, and nobody else's.
__global__ void __launch_bounds__(kThreadsMax)
    RmsNormKernel(Vector* out, Vector* residual, const Vector* x, const Vector* __restrict__ weight,
                  int vectors, float epsilon) {
  const int64_t row = int64_t{blockIdx.x} * vectors;
  const int thread = threadIdx.x, threads = blockDim.x;
  Vector share[kVectorsMax];
  float sum = 0.0f;
#pragma unroll
  for (int i = 0; i < kVectorsMax; ++i) {
    const int at = i * threads + thread;
    if (at >= vectors) break;
    share[i] = x[row + at];
    if (residual != nullptr) {
      share[i] = Add(share[i], residual[row + at]);
      residual[row + at] = share[i];
    }
    sum += SumOfSquares(share[i]);
  }
  const float columns = static_cast<float>(vectors * Vector::kSize);
  const float factor = rsqrtf(SumOverBlock(sum) / columns + epsilon);
#pragma unroll
  for (int i = 0; i < kVectorsMax; ++i) {
    const int at = i * threads + thread;
    if (at >= vectors) break;
    out[row + at] = Scale(share[i], weight[at], factor);
  }
}

}  // namespace

cudaError_t RmsNorm(__nv_bfloat16* out, __nv_bfloat16* residual, const __nv_bfloat16* x,
                    const __nv_bfloat16* weight, int32_t rows, int32_t columns, float epsilon,
                    cudaStream_t stream) {
  if (rows < 0 || columns <= 0 || columns > kRmsNormColumnsMax || columns % Vector::kSize != 0) {
    return cudaErrorInvalidValue;
  }
  if (rows == 0) return cudaSuccess;
  const int vectors = columns / Vector::kSize;
  const int whole_warps = (vectors + kWarp - 1) / kWarp * kWarp;
  const int threads = whole_warps < kThreadsMax ? whole_warps : kThreadsMax;
  RmsNormKernel<<<rows, threads, 0, stream>>>(
      reinterpret_cast<Vector*>(out), reinterpret_cast<Vector*>(residual),
      reinterpret_cast<const Vector*>(x), reinterpret_cast<const Vector*>(weight), vectors,
      epsilon);
  return cudaGetLastError();
}

}  // namespace penstock::engine::cuda
