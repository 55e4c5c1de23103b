// Sums over ranks; peers.h tells who sees whose memory.
//
// Small messages are one-shot: a meeting, then every rank reads everybody's
// numbers and adds them up itself, going straight on to the residual and the
// norm: one kernel, one meeting, about 3 us between two GPUs. Large ones are
// two-shot: each rank adds up one part, and after a second meeting all read each
// other's, again straight into the residual and the norm: 2 (n - 1) / n of a
// buffer crosses the links and not n - 1, and nobody writes down what it reads.
//
// A block's meeting vouches for the block of the same number alone, so the
// second phase of a block reads only what the blocks of its number wrote: some
// columns of its rows each. That what a rank's earlier kernels wrote is there
// needs no more than that the rank came to the meeting: its stream is in order.
//
// Nobody overwrites what another still reads. In the first phase rank r writes part r
// of its own numbers, which until the second meeting only the thread that writes it
// reads; in the second nobody writes numbers that others read. A rank that ends early
// leaves others reading, so its buffer must stay as it is until they have ended, too.
// They have once they come to a meeting of a later kernel, as none of its blocks runs
// before the earlier kernel has ended with all of them. Hence the two buffers: the
// kernel that fills one again comes after one that met over the other.
#include "backend-engine/kernels/cuda/peers.h"

#include "backend-engine/kernels/cuda/load_kernels.h"
#include "backend-engine/kernels/cuda/norm_row.cuh"
#include "backend-engine/kernels/cuda/numbers.cuh"

namespace penstock::engine::cuda {
namespace {

constexpr int kThreads = 512;
constexpr int64_t kVectorsMax = 1 << 30;  // Of a sum: counted in 32 bits, with room for a stride.
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

// The same in two shots. Of rows b, b + grid, ... block b of rank r adds up column
// vectors [r * each, (r + 1) * each), and reads the others' from their ranks.
__global__ void __launch_bounds__(kBlockThreadsMax)
    PeerSumPartsAndNormKernel(PeerGroup group, int buffer, RmsNormCall call) {
  Meet(group);
  const int vectors = call.width / kVector;
  const int each = (vectors + group.size - 1) / group.size;
  const int first = group.rank * each;
  const int own = first + each <= vectors ? each : first < vectors ? vectors - first : 0;
  const int block = blockIdx.x, blocks = gridDim.x;
  const int rows = (call.token_count - block + blocks - 1) / blocks;
  Bf16* mine = group.of[group.rank].branch[buffer];
  for (int i = threadIdx.x; i < rows * own; i += blockDim.x) {
    const int64_t row = block + i / own * blocks;
    const int64_t at = row * call.width + (first + i % own) * kVector;
    float numbers[kVector];
    SumPeers(group, buffer, at, numbers);
    StoreBf16(mine + at, numbers);
  }
  Meet(group);
  for (int row = block; row < call.token_count; row += blocks) {
    NormRow(call, row, [&](int at, float (&numbers)[kVector]) {
      const Bf16* from = group.of[at / kVector / each].branch[buffer];
      LoadBf16(from + int64_t{row} * call.width + at, numbers);
    });
  }
}

// Rank r adds up vectors [r * each, (r + 1) * each) of all: parts that are each in one
// piece, for whoever sums them further before they are taken.
__device__ __forceinline__ int64_t VectorsEach(const PeerGroup& group, int64_t vectors) {
  return (vectors + group.size - 1) / group.size;
}

__global__ void __launch_bounds__(kThreads)
    PeerSumPartsKernel(PeerGroup group, int buffer, int64_t vectors) {
  Meet(group);
  const int64_t each = VectorsEach(group, vectors);
  Bf16* mine = group.of[group.rank].branch[buffer];
  for (int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x; i < each;
       i += int64_t{gridDim.x} * kThreads) {
    const int64_t at = group.rank * each + i;
    if (at >= vectors) break;
    float numbers[kVector];
    SumPeers(group, buffer, at * kVector, numbers);
    StoreBf16(mine + at * kVector, numbers);
  }
}

// The parts were written by kernels before this one, so that its meeting vouches for
// all of them, whichever block wrote them. Each rank begins with the rows of its own
// part, so that no rank is read by all at once.
__global__ void __launch_bounds__(kBlockThreadsMax)
    PeerTakePartsAndNormKernel(PeerGroup group, int buffer, RmsNormCall call) {
  Meet(group);
  const unsigned row_vectors = call.width / kVector;
  const auto each = static_cast<unsigned>(VectorsEach(group, call.token_count * row_vectors));
  const int skipped = static_cast<int>(int64_t{group.rank} * call.token_count / group.size);
  for (int i = blockIdx.x; i < call.token_count; i += gridDim.x) {
    const int row = i < call.token_count - skipped ? i + skipped : i - (call.token_count - skipped);
    NormRow(call, row, [&](int at, float (&numbers)[kVector]) {
      // In 32 bits: a division of 64 would spill.
      const unsigned vector = row * row_vectors + at / kVector;
      LoadBf16(group.of[vector / each].branch[buffer] + int64_t{vector} * kVector, numbers);
    });
  }
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

GpuError LaunchNorm(void (*kernel)(PeerGroup, int, RmsNormCall), const PeerGroup& group, int buffer,
                    const RmsNormCall& norm, Stream stream) {
  if (!Takes(group, buffer) || !NormTakes(norm) ||
      int64_t{norm.token_count} * (norm.width / kVector) > kVectorsMax) {
    return kGpuInvalid;
  }
  if (norm.token_count == 0) return kGpuOk;
  return Launch(kernel, Blocks(group, norm.token_count), NormThreads(norm.width), 0, stream, group,
                buffer, norm);
}

}  // namespace

GpuError PeerSumAndNorm(const PeerGroup& group, int buffer, const RmsNormCall& norm,
                        Stream stream) {
  return LaunchNorm(PeerSumAndNormKernel, group, buffer, norm, stream);
}
GpuError PeerSumPartsAndNorm(const PeerGroup& group, int buffer, const RmsNormCall& norm,
                             Stream stream) {
  return LaunchNorm(PeerSumPartsAndNormKernel, group, buffer, norm, stream);
}
GpuError PeerTakePartsAndNorm(const PeerGroup& group, int buffer, const RmsNormCall& norm,
                              Stream stream) {
  return LaunchNorm(PeerTakePartsAndNormKernel, group, buffer, norm, stream);
}

GpuError PeerSumParts(const PeerGroup& group, int buffer, int64_t count, Stream stream) {
  const int64_t vectors = count / kVector;
  if (!Takes(group, buffer) || count < 0 || count % kVector != 0 || vectors > kVectorsMax) {
    return kGpuInvalid;
  }
  if (count == 0) return kGpuOk;
  return Launch(PeerSumPartsKernel, BlocksFor(group, (vectors + group.size - 1) / group.size),
                kThreads, 0, stream, group, buffer, vectors);
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
  return LoadKernels(PeerSumAndNormKernel, PeerSumPartsAndNormKernel, PeerSumPartsKernel,
                     PeerTakePartsAndNormKernel, PeerGatherKernel, TakeTokensKernel);
}

}  // namespace penstock::engine::cuda
