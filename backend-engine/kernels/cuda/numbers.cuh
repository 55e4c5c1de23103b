// bf16 in vectors of 8, and sums over a warp and a block: what most kernels share.
#pragma once

#include "backend-engine/kernels/cuda/simt.h"

namespace penstock::engine::cuda {

constexpr unsigned kWholeWarp = 0xffffffffu;
constexpr int kWarpSize = 32;
constexpr int kBlockThreadsMax = 1024;
constexpr int kVector = 8;  // bf16 numbers that move in one instruction of 16 bytes.

constexpr int DivideUp(int64_t value, int64_t by) { return static_cast<int>((value + by - 1) / by); }

__device__ __forceinline__ float LowOf(uint32_t pair) { return __uint_as_float(pair << 16); }
__device__ __forceinline__ float HighOf(uint32_t pair) {
  return __uint_as_float(pair & 0xffff0000u);
}
__device__ __forceinline__ float WidenBf16(uint16_t bits) {
  return __uint_as_float(static_cast<uint32_t>(bits) << 16);
}
__device__ __forceinline__ uint16_t NarrowToBf16(float value) {
  return static_cast<uint16_t>(PackBf16(value, 0.0f));
}

// REQUIRES (here and below): `from`, `to` are 16-byte aligned.
__device__ __forceinline__ void Widen(const uint4& vector, float (&numbers)[kVector]) {
  numbers[0] = LowOf(vector.x), numbers[1] = HighOf(vector.x);
  numbers[2] = LowOf(vector.y), numbers[3] = HighOf(vector.y);
  numbers[4] = LowOf(vector.z), numbers[5] = HighOf(vector.z);
  numbers[6] = LowOf(vector.w), numbers[7] = HighOf(vector.w);
}
__device__ __forceinline__ uint4 Narrow(const float (&numbers)[kVector]) {
  uint4 vector;
  vector.x = PackBf16(numbers[0], numbers[1]);
  vector.y = PackBf16(numbers[2], numbers[3]);
  vector.z = PackBf16(numbers[4], numbers[5]);
  vector.w = PackBf16(numbers[6], numbers[7]);
  return vector;
}
__device__ __forceinline__ void LoadBf16(const uint16_t* from, float (&numbers)[kVector]) {
  Widen(*reinterpret_cast<const uint4*>(from), numbers);
}
__device__ __forceinline__ void StoreBf16(uint16_t* to, const float (&numbers)[kVector]) {
  *reinterpret_cast<uint4*>(to) = Narrow(numbers);
}
__device__ __forceinline__ void LoadFloats(const float* from, float (&numbers)[kVector]) {
  const float4 a = reinterpret_cast<const float4*>(from)[0];
  const float4 b = reinterpret_cast<const float4*>(from)[1];
  numbers[0] = a.x, numbers[1] = a.y, numbers[2] = a.z, numbers[3] = a.w;
  numbers[4] = b.x, numbers[5] = b.y, numbers[6] = b.z, numbers[7] = b.w;
}
__device__ __forceinline__ void StoreFloats(float* to, const float (&numbers)[kVector]) {
  reinterpret_cast<float4*>(to)[0] = float4{numbers[0], numbers[1], numbers[2], numbers[3]};
  reinterpret_cast<float4*>(to)[1] = float4{numbers[4], numbers[5], numbers[6], numbers[7]};
}

// Reductions give every thread the result, in an order that is always the same.
struct Plus {
  template <typename T>
  __device__ T operator()(T a, T b) const {
    return a + b;
  }
};
struct Larger {
  template <typename T>
  __device__ T operator()(T a, T b) const {
    return a > b ? a : b;
  }
};

// Over the `kLanes` lanes (a power of two) that share a lane's number / kLanes.
template <int kLanes = kWarpSize, typename T, typename Op>
__device__ __forceinline__ T ReduceLanes(T value, Op op) {
#pragma unroll
  for (int distance = kLanes / 2; distance > 0; distance /= 2) {
    value = op(value, __shfl_xor_sync(kWholeWarp, value, distance));
  }
  return value;
}

// REQUIRES: blockDim.x is whole warps, every thread calls, `neutral` changes nothing.
template <typename T, typename Op>
__device__ T ReduceBlock(T value, T neutral, Op op) {
  __shared__ T of_warp[kBlockThreadsMax / kWarpSize];
  const int warp = threadIdx.x / kWarpSize, lane = threadIdx.x % kWarpSize;
  const int warps = blockDim.x / kWarpSize;
  value = ReduceLanes(value, op);
  __syncthreads();  // The last call's readers are done.
  if (lane == 0) of_warp[warp] = value;
  __syncthreads();
  // Every warp reduces all of them: cheaper than another barrier.
  return ReduceLanes(lane < warps ? of_warp[lane] : neutral, op);
}

}  // namespace penstock::engine::cuda
