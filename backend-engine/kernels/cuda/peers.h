// Sums over tensor-parallel ranks by the ranks' own kernels, which read each
// other's memory: over NVLink or PCIe between GPUs of one machine, or on one GPU
// that runs several ranks.
//
// The ranks' blocks of one number meet: each writes a word into the memory of
// every other and waits for theirs. A rank that waits looks at `abort` now and
// then, a word of the host's memory, and gives up where it is not 0; then the
// numbers mean nothing.
//
// Sums go in rank order in fp32: every rank ends with the same bits.
#pragma once

#include <cstdint>

#include "backend-engine/kernels/cuda/cuda_kernels.h"

namespace penstock::engine::cuda {

inline constexpr int kPeersMax = 8;
inline constexpr int kPeerBlocksMax = 64;

// Blocks of a kernel that waits for other ranks. Where ranks share a GPU, those
// that wait hold their multiprocessors while the last rank's products still need
// some for themselves: so all of them together take half of the GPU at most.
constexpr int PeerBlocks(int sm_count, int ranks_on_gpu) {
  if (ranks_on_gpu <= 1) return kPeerBlocksMax;
  const int share = sm_count / (2 * ranks_on_gpu);
  return share < 1 ? 1 : share < kPeerBlocksMax ? share : kPeerBlocksMax;
}

// A rank's memory that the others see: what it adds to the residual, in two
// buffers used in turns, its logits, and the words by which the ranks meet.
struct PeerMemory {
  Bf16* branch[2];
  float* logits;
  uint32_t* words;  // [kPeerBlocksMax][kPeersMax], by block and by who wrote; zero at start.
  const SampledRow* sampled;  // Of rank 0: what its last step chose.
};

struct PeerGroup {
  int32_t rank, size;
  int32_t blocks_max;  // The same on every rank: blocks of one number meet.
  PeerMemory of[kPeersMax];
  uint32_t* meetings;  // [kPeerBlocksMax]: of this rank's blocks so far; zero at start.
  const uint32_t* abort;
};

// As RmsNorm of the sum over the ranks' branch[buffer], whose numbers norm.x points to;
// what they are afterwards is nobody's business. In one shot, or in two: each rank adds up
// some columns, rounded to bf16, and all read each other's. REQUIRES (here and below): a
// buffer is written again only after a meeting over another one.
GpuError PeerSumAndNorm(const PeerGroup& group, int buffer, const RmsNormCall& norm,
                        Stream stream);
GpuError PeerSumPartsAndNorm(const PeerGroup& group, int buffer, const RmsNormCall& norm,
                             Stream stream);

// The two shots apart, between which a rank's part may be summed over more ranks
// elsewhere: each adds up its part (PartOf) of `count` numbers, a multiple of 8; all norm
// what the parts are by then.
GpuError PeerSumParts(const PeerGroup& group, int buffer, int64_t count, Stream stream);
GpuError PeerTakePartsAndNorm(const PeerGroup& group, int buffer, const RmsNormCall& norm,
                              Stream stream);
// A rank's part of `count` numbers; may be empty.
struct PeerPart {
  int64_t first, count;
};
constexpr PeerPart PartOf(int32_t rank, int32_t size, int64_t count) {
  constexpr int64_t kAtOnce = 8;
  const int64_t each = (count / kAtOnce + size - 1) / size * kAtOnce;
  const int64_t first = rank * each < count ? rank * each : count;
  return {first, count - first < each ? count - first : each};
}

// all[rank * count + i] becomes that rank's logits[i], on the rank where `all` is not null.
GpuError PeerGather(const PeerGroup& group, int64_t count, float* all, Stream stream);

// to[places[i].token] becomes the token that rank 0 chose as its sample
// places[i].sample, or 0 where it chose none. Also with one rank.
struct TokenPlace {
  int32_t token, sample;
};
GpuError TakeTokens(const PeerGroup& group, const TokenPlace* places, int32_t count, int32_t* to,
                    Stream stream);

}  // namespace penstock::engine::cuda
