// Sums over ranks; peers.h tells who sees whose memory.
//
// Small messages are one-shot: a meeting, then every rank reads everybody's
// numbers and adds them up itself, going straight on to the residual and the
// norm: one kernel, one meeting, about 3 us between two GPUs. Large ones are
// two-shot: each rank adds up one part and a second meeting lets the others read
// it, so that 2 (n - 1) / n of a buffer crosses the links and not n - 1.
//
// A block's meeting vouches for the block of the same number alone, so the
// second phase of a block reads only what the blocks of its number wrote. That
// what a rank's earlier kernels wrote is there needs no more than that the rank
// came to the meeting: its stream is in order.
#include "backend-engine/kernels/cuda/peers.h"

#include "backend-engine/kernels/cuda/load_kernels.h"
#include "backend-engine/kernels/cuda/norm_row.cuh"
#include "backend-engine/kernels/cuda/numbers.cuh"

namespace penstock::engine::cuda {
namespace {

constexpr int kThreads = 512;
constexpr int kLooksBetweenAborts = 256;  // The word is the host's: a look at it takes a microsecond.

// All ranks' blocks of this number have come. Called by every thread of the block.
__device__ void Meet(const PeerGroup& group) {
  const int block = blockIdx.x, peer = threadIdx.x;
  __syncthreads();  // What this block did before is done.
  const uint32_t turn = group.meetings[block] + 1;
  if (peer < group.size) {
    StoreRelease(group.of[peer].words + block * kPeersMax + group.rank, turn);
    const uint32_t* word = group.of[group.rank].words + block * kPeersMax + peer;
    for (int looks = 1; static_cast<int32_t>(LoadAcquire(word) - turn) < 0; ++looks) {
      if (looks % kLooksBetweenAborts == 0 && LoadAcquire(group.abort) != 0) break;
      WaitABit();
    }
  }
  __syncthreads();
  if (threadIdx.x == 0) group.meetings[block] = turn;
}

// numbers = the sum over the ranks' numbers at `at`, in rank order.
__device__ __forceinline__ void SumPeers(const PeerGroup& group, int buffer, int64_t at,
                                         float (&numbers)[kVector]) {
  LoadBf16(group.of[0].branch[buffer] + at, numbers);
  for (int rank = 1; rank < group.size; ++rank) {
    float other[kVector];
    LoadBf16(group.of[rank].branch[buffer] + at, other);
#pragma unroll
    for (int i = 0; i < kVector; ++i) numbers[i] += other[i];
  }
}

// Block b: rows b, b + grid, ...
__global__ void __launch_bounds__(kBlockThreadsMax)
    PeerSumAndNormKernel(PeerGroup group, int buffer, RmsNormCall call) {
  Meet(group);
  for (int row = blockIdx.x; row < call.token_count; row += gridDim.x) {
    NormRow(call, row, [&](int at, float (&numbers)[kVector]) {
      SumPeers(group, buffer, int64_t{row} * call.width + at, numbers);
    });
  }
}

// Rank r adds up vectors [r * each, (r + 1) * each); of any part, thread t of the
// grid has vectors t, t + threads of the grid, ... in both phases.
__device__ __forceinline__ int64_t VectorsEach(const PeerGroup& group, int64_t vectors) {
  return (vectors + group.size - 1) / group.size;
}
__device__ __forceinline__ int64_t FirstVector() {
  return int64_t{blockIdx.x} * kThreads + threadIdx.x;
}

__device__ __forceinline__ void SumPart(const PeerGroup& group, int buffer, int64_t vectors) {
  const int64_t each = VectorsEach(group, vectors);
  Bf16* mine = group.of[group.rank].branch[buffer];
  for (int64_t i = FirstVector(); i < each; i += int64_t{gridDim.x} * kThreads) {
    const int64_t at = group.rank * each + i;
    if (at >= vectors) break;
    float numbers[kVector];
    SumPeers(group, buffer, at * kVector, numbers);
    StoreBf16(mine + at * kVector, numbers);
  }
}

__device__ __forceinline__ void TakeParts(const PeerGroup& group, int buffer, int64_t vectors) {
  const int64_t each = VectorsEach(group, vectors);
  Bf16* mine = group.of[group.rank].branch[buffer];
  for (int other = 1; other < group.size; ++other) {
    // Everybody begins with another one's memory.
    const int rank = (group.rank + other) % group.size;
    const auto* from = reinterpret_cast<const uint4*>(group.of[rank].branch[buffer]);
    for (int64_t i = FirstVector(); i < each; i += int64_t{gridDim.x} * kThreads) {
      const int64_t at = rank * each + i;
      if (at >= vectors) break;
      reinterpret_cast<uint4*>(mine)[at] = from[at];
    }
  }
}

__global__ void __launch_bounds__(kThreads)
    PeerSumKernel(PeerGroup group, int buffer, int64_t vectors) {
  Meet(group);
  SumPart(group, buffer, vectors);
  Meet(group);
  TakeParts(group, buffer, vectors);
}

// The halves apart: a kernel's end does for what a block wrote before the next kernel's
// meeting what the meeting of the same block does within one.
__global__ void __launch_bounds__(kThreads)
    PeerSumPartsKernel(PeerGroup group, int buffer, int64_t vectors) {
  Meet(group);
  SumPart(group, buffer, vectors);
}
__global__ void __launch_bounds__(kThreads)
    PeerTakePartsKernel(PeerGroup group, int buffer, int64_t vectors) {
  Meet(group);
  TakeParts(group, buffer, vectors);
}

__global__ void __launch_bounds__(kThreads)
    PeerGatherKernel(PeerGroup group, int64_t count, float* all) {
  Meet(group);
  if (all == nullptr) return;
  for (int rank = 0; rank < group.size; ++rank) {
    const auto* from = reinterpret_cast<const float4*>(group.of[rank].logits);
    auto* to = reinterpret_cast<float4*>(all + rank * count);
    for (int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x; i < count / 4;
         i += int64_t{gridDim.x} * kThreads) {
      to[i] = from[i];
    }
  }
}

// One block. The meeting comes after whatever chose the tokens in rank 0's stream.
__global__ void __launch_bounds__(kThreads)
    TakeTokensKernel(PeerGroup group, const TokenPlace* places, int32_t count, int32_t* to) {
  Meet(group);
  for (int i = threadIdx.x; i < count; i += kThreads) {
    const int token = group.of[0].sampled[places[i].sample].token;
    to[places[i].token] = token > 0 ? token : 0;
  }
}

bool Takes(const PeerGroup& group, int buffer) {
  return group.size >= 1 && group.size <= kPeersMax && group.rank >= 0 &&
         group.rank < group.size && (buffer == 0 || buffer == 1) && group.blocks_max >= 1 &&
         group.blocks_max <= kPeerBlocksMax;
}

dim3 Blocks(const PeerGroup& group, int64_t wanted) {
  return dim3(static_cast<unsigned>(wanted < group.blocks_max ? wanted : group.blocks_max));
}
dim3 BlocksFor(const PeerGroup& group, int64_t vectors) {
  return Blocks(group, (vectors + kThreads - 1) / kThreads);
}

}  // namespace

GpuError PeerSumAndNorm(const PeerGroup& group, int buffer, const RmsNormCall& norm,
                        Stream stream) {
  if (!Takes(group, buffer) || !NormTakes(norm)) return kGpuInvalid;
  if (norm.token_count == 0) return kGpuOk;
  return Launch(PeerSumAndNormKernel, Blocks(group, norm.token_count), NormThreads(norm.width), 0,
                stream, group, buffer, norm);
}

namespace {
GpuError LaunchSum(void (*kernel)(PeerGroup, int, int64_t), const PeerGroup& group, int buffer,
                   int64_t count, Stream stream) {
  if (!Takes(group, buffer) || count < 0 || count % kVector != 0) return kGpuInvalid;
  if (count == 0) return kGpuOk;
  const int64_t vectors = count / kVector;
  return Launch(kernel, BlocksFor(group, (vectors + group.size - 1) / group.size), kThreads, 0,
                stream, group, buffer, vectors);
}
}  // namespace

GpuError PeerSum(const PeerGroup& group, int buffer, int64_t count, Stream stream) {
  return LaunchSum(PeerSumKernel, group, buffer, count, stream);
}
GpuError PeerSumParts(const PeerGroup& group, int buffer, int64_t count, Stream stream) {
  return LaunchSum(PeerSumPartsKernel, group, buffer, count, stream);
}
GpuError PeerTakeParts(const PeerGroup& group, int buffer, int64_t count, Stream stream) {
  return LaunchSum(PeerTakePartsKernel, group, buffer, count, stream);
}

GpuError PeerGather(const PeerGroup& group, int64_t count, float* all, Stream stream) {
  if (!Takes(group, 0) || count < 0 || count % 4 != 0) return kGpuInvalid;
  if (count == 0) return kGpuOk;
  return Launch(PeerGatherKernel, BlocksFor(group, count / 4), kThreads, 0, stream, group, count, all);
}

GpuError TakeTokens(const PeerGroup& group, const TokenPlace* places, int32_t count, int32_t* to,
                    Stream stream) {
  if (!Takes(group, 0) || count < 0) return kGpuInvalid;
  if (count == 0) return kGpuOk;
  return Launch(TakeTokensKernel, dim3(1), kThreads, 0, stream, group, places, count, to);
}

GpuError LoadPeers() {
  return LoadKernels(PeerSumAndNormKernel, PeerSumKernel, PeerSumPartsKernel, PeerTakePartsKernel,
                     PeerGatherKernel, TakeTokensKernel);
}

}  // namespace penstock::engine::cuda
