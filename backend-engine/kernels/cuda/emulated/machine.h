// A GPU on a processor, for tests: runs the source of a kernel as it is, every
// thread of a block on a stack of its own, switched where threads wait for each
// other. It is slow and exact about what CUDA promises:
//
//   - threads of a block run in any order between two barriers (SetThreadOrder),
//     so that a missing barrier shows;
//   - a barrier that some thread never reaches ends the program with a message;
//   - shared memory has the size that was asked for and begins as NaN, and
//     AddressSanitizer watches all other memory;
//   - a copy in the background (cp.async) lands when its thread waits for it, not
//     before, and one that nobody waits for ends the program;
//   - ldmatrix and mma give each lane what the PTX manual says.
//
// It says nothing about speed, about the order in which a GPU makes writes visible, or
// about what nvcc makes of the source. Blocks of one launch run one after another, so only
// blocks of different ranks, each in a stream of its own, may wait for each other.
//
// Included by kernels/cuda/simt.h in place of CUDA's headers.
#pragma once

#include <atomic>
#include <bit>
#include <cmath>
#include <cstring>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include "backend-engine/kernels/cuda/emulated/recording.h"
#include "backend-engine/kernels/cuda/gpu.h"
#include "backend-engine/kernels/dtype.h"

#define __global__
#define __device__ inline
#define __host__
#define __forceinline__
#define __launch_bounds__(...)
#define __restrict__ __restrict
#define __shared__ static thread_local
#define threadIdx (::penstock::engine::emulated::current->thread)
#define blockIdx (::penstock::engine::emulated::current->block)
#define blockDim (::penstock::engine::emulated::current->block_size)
#define gridDim (::penstock::engine::emulated::current->grid_size)

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  constexpr dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1) : x(a), y(b), z(c) {}
};
struct alignas(16) uint4 {
  uint32_t x, y, z, w;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(8) float2 {
  float x, y;
};

namespace penstock::engine::emulated {

inline constexpr int kWarp = 32;
inline constexpr size_t kSlotBytes = 32;

// The thread of a kernel that runs now on this host thread, which is a stream's.
struct Thread {
  dim3 thread, block, block_size, grid_size;
  std::vector<std::pair<void*, const void*>> copies;  // Under way, oldest first.
  std::vector<size_t> groups;                         // How many each group has; the last is open.
};
extern __thread Thread* current;

// Seed 0: ascending; 1: descending; others: a shuffle that differs at each turn.
void SetThreadOrder(unsigned seed);

// Runs (or, while the stream records a graph, notes) a launch.
void Run(dim3 grid, int threads, size_t shared_bytes, cuda::Stream stream,
         std::function<void()> body);

unsigned char* SharedBytes();
void BlockBarrier();
void Yield();

// Gives `bytes` of this lane to the warp and waits until all its lanes have
// given theirs. What lane l gave lies at the result + l * kSlotBytes until the
// next exchange but one.
const std::byte* Exchange(const void* mine, size_t bytes);

template <typename T>
T FromLane(T value, int lane) {
  static_assert(sizeof(T) <= kSlotBytes);
  const std::byte* all = Exchange(&value, sizeof value);
  T other;
  std::memcpy(&other, all + static_cast<size_t>(lane) * kSlotBytes, sizeof other);
  return other;
}

inline int Lane() { return static_cast<int>(current->thread.x) % kWarp; }

}  // namespace penstock::engine::emulated

inline void __syncthreads() { penstock::engine::emulated::BlockBarrier(); }
inline void __syncwarp() { penstock::engine::emulated::FromLane(0, 0); }
template <typename T>
T __shfl_xor_sync(unsigned, T value, int distance) {
  return penstock::engine::emulated::FromLane(value, penstock::engine::emulated::Lane() ^ distance);
}
template <typename T>
T __shfl_sync(unsigned, T value, int lane) {
  return penstock::engine::emulated::FromLane(value, lane % penstock::engine::emulated::kWarp);
}
// Threads of a block never run at the same moment, so these are whole as they are.
inline int atomicAdd(int* at, int value) {
  const int old = *at;
  *at += value;
  return old;
}
inline int atomicOr(int* at, int value) {
  const int old = *at;
  *at |= value;
  return old;
}
inline int atomicExch(int* at, int value) {
  const int old = *at;
  *at = value;
  return old;
}
inline float rsqrtf(float value) { return 1.0f / std::sqrt(value); }
inline float __uint_as_float(uint32_t bits) { return std::bit_cast<float>(bits); }
inline uint32_t __float_as_uint(float value) { return std::bit_cast<uint32_t>(value); }
template <typename T>
T min(T a, T b) {
  return b < a ? b : a;
}
template <typename T>
T max(T a, T b) {
  return a < b ? b : a;
}

namespace penstock::engine::cuda {

template <typename... Params, typename... Args>
GpuError Launch(void (*kernel)(Params...), dim3 grid, int threads, size_t shared_bytes,
                Stream stream, Args... args) {
  emulated::NoteLaunched(reinterpret_cast<const void*>(kernel));
  emulated::Run(grid, threads, shared_bytes, stream,
                [=] { kernel(static_cast<Params>(args)...); });
  return kGpuOk;
}

GpuError LoadKernels(auto*... kernels) {
  (emulated::NoteLoaded(reinterpret_cast<const void*>(kernels)), ...);
  return kGpuOk;
}

inline unsigned char* DynamicShared() { return emulated::SharedBytes(); }
inline uint32_t PackBf16(float low, float high) {
  return Bf16FromFloat(low) | (uint32_t{Bf16FromFloat(high)} << 16);
}
inline uint4 LoadOnce(const uint4* from) { return *from; }

inline void CopyAsync(void* shared, const void* global) {
  emulated::Thread& thread = *emulated::current;
  if (thread.groups.empty()) thread.groups.push_back(0);
  thread.copies.emplace_back(shared, global);
  ++thread.groups.back();
}
inline void CommitCopies() {
  emulated::Thread& thread = *emulated::current;
  if (thread.groups.empty()) thread.groups.push_back(0);
  thread.groups.push_back(0);
}
template <int kPending>
void WaitForCopies() {
  auto& copies = emulated::current->copies;
  auto& groups = emulated::current->groups;
  while (groups.size() > kPending + 1) {
    for (size_t i = 0; i < groups.front(); ++i) std::memcpy(copies[i].first, copies[i].second, 16);
    copies.erase(copies.begin(), copies.begin() + static_cast<std::ptrdiff_t>(groups.front()));
    groups.erase(groups.begin());
  }
}

void LoadMatrices(uint32_t (&to)[4], const void* row);
void LoadTransposed(uint32_t (&to)[4], const void* row);
void MultiplyAdd(float (&sum)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1);

inline void StoreRelease(uint32_t* word, uint32_t value) {
  std::atomic_ref(*word).store(value, std::memory_order_release);
}
inline uint32_t LoadAcquire(const uint32_t* word) {
  return std::atomic_ref(*const_cast<uint32_t*>(word)).load(std::memory_order_acquire);
}
// The peer is another host thread, which may be waiting for this very processor.
inline void WaitABit() {
  emulated::Yield();
  std::this_thread::yield();
}

}  // namespace penstock::engine::cuda
