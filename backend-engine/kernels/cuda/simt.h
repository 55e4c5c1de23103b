// What the source of a kernel needs of the machine that runs it. For nvcc it is
// CUDA itself; for any other compiler it is emulated/machine.h, so that the
// same source runs on a processor, thread by thread, in tests.
//
// Beside CUDA's own words (__global__, threadIdx, __syncthreads, __shfl_xor_sync)
// kernels use the few below. Only included by sources of kernels.
#pragma once

#include <cstddef>
#include <cstdint>

#include "backend-engine/kernels/cuda/gpu.h"

#if defined(__CUDACC__)

#include <cuda_bf16.h>
#include <cuda_runtime.h>

namespace penstock::engine::cuda {

inline constexpr int kSharedBytesDefault = 48 << 10;  // More must be asked for.

// Queues `kernel` and says whether that was possible.
template <typename... Params, typename... Args>
GpuError Launch(void (*kernel)(Params...), dim3 grid, int threads, size_t shared_bytes,
                Stream stream, Args... args) {
  if (shared_bytes > kSharedBytesDefault) {
    const cudaError_t error =
        cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                             cudaFuncAttributeMaxDynamicSharedMemorySize, int(shared_bytes));
    if (error != cudaSuccess) return error;
  }
  // What it returns is of this launch; cudaGetLastError() may tell of something older.
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  return cudaLaunchKernelEx(&config, kernel, static_cast<Params>(args)...);
}

// Brings kernels onto the current GPU.
template <typename... Kernels>
GpuError LoadKernels(Kernels*... kernels) {
  cudaError_t error = cudaSuccess;
  const auto load = [&error](const void* kernel) {
    cudaFuncAttributes about;
    if (error == cudaSuccess) error = cudaFuncGetAttributes(&about, kernel);
  };
  (load(reinterpret_cast<const void*>(kernels)), ...);
  return error;
}

// The block's shared memory of the size given to Launch().
__device__ __forceinline__ unsigned char* DynamicShared() {
  extern __shared__ uint4 dynamic_shared[];
  return reinterpret_cast<unsigned char*>(dynamic_shared);
}

// Two numbers rounded to bf16, the first one in the low half.
__device__ __forceinline__ uint32_t PackBf16(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const uint32_t*>(&pair);
}

// 16 bytes that are read once: past the first-level cache, which is left to
// what is read again.
__device__ __forceinline__ uint4 LoadOnce(const uint4* from) {
  uint4 value;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(value.x), "=r"(value.y), "=r"(value.z), "=r"(value.w)
               : "l"(from));
  return value;
}

// 16 bytes from global to shared memory, in the background.
__device__ __forceinline__ void CopyAsync(void* shared, const void* global) {
  const auto at = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(at), "l"(global) : "memory");
}
__device__ __forceinline__ void CommitCopies() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}
// Waits until at most `kPending` groups of this thread's copies are under way.
template <int kPending>
__device__ __forceinline__ void WaitForCopies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

// Four 8x8 matrices of 16-bit numbers: lane 8i + r gives the address of row r of
// matrix i, and gets of each matrix i row lane / 4, columns lane % 4 * 2 and + 1.
__device__ __forceinline__ void LoadMatrices(uint32_t (&to)[4], const void* row) {
  const auto at = static_cast<uint32_t>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(at)
               : "memory");
}
// The same of the transposed matrices.
__device__ __forceinline__ void LoadTransposed(uint32_t (&to)[4], const void* row) {
  const auto at = static_cast<uint32_t>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(at)
               : "memory");
}

// sum[16x8] += a[16x16] * b[16x8], bf16 times bf16 in fp32, by the whole warp.
// With g = lane / 4, t = lane % 4, a lane holds
//   a[0]: (g, 2t..2t+1)   a[1]: (g+8, 2t..)   a[2]: (g, 2t+8..)   a[3]: (g+8, 2t+8..)
//   b[0]: (2t..2t+1, g)   b[1]: (2t+8.., g)
//   sum[0..1]: (g, 2t..2t+1)   sum[2..3]: (g+8, 2t..2t+1)
__device__ __forceinline__ void MultiplyAdd(float (&sum)[4], const uint32_t (&a)[4], uint32_t b0,
                                            uint32_t b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
               "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
               : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Words by which the ranks' GPUs tell each other where they are. What was
// written before a Release is seen after an Acquire that saw its value.
__device__ __forceinline__ void StoreRelease(uint32_t* word, uint32_t value) {
  asm volatile("st.release.sys.global.u32 [%0], %1;" ::"l"(word), "r"(value) : "memory");
}
__device__ __forceinline__ uint32_t LoadAcquire(const uint32_t* word) {
  uint32_t value;
  asm volatile("ld.acquire.sys.global.u32 %0, [%1];" : "=r"(value) : "l"(word) : "memory");
  return value;
}
// Called in each turn of a loop that waits for such a word.
__device__ __forceinline__ void WaitABit() { __nanosleep(20); }

}  // namespace penstock::engine::cuda

#else
#include "backend-engine/kernels/cuda/emulated/machine.h"
#endif
