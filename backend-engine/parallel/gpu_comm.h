// What the ranks' GPUs say to each other, queued on a rank's stream: sums over
// the ranks by our own kernels (peers.h) or by NCCL, whichever the table says is
// faster for the size, and the logits to rank 0.
//
// GpuMeeting is the ranks' common part, one a process; a GpuComm is one rank's.
// Ranks are threads of one process; several may share one GPU, and then there is
// no NCCL between them.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "backend-engine/kernels/cuda/peers.h"
#include "backend-engine/parallel/all_reduce_choice.h"

namespace penstock::engine {

// Sums `count` bf16 numbers over the ranks in place, queued on the rank's stream
// (NcclComm's, as a call).
using LibrarySum = std::function<bool(cuda::Bf16* values, int64_t count)>;

class GpuMeeting {
 public:
  explicit GpuMeeting(int size) : memory_(static_cast<size_t>(size)) {}
  ~GpuMeeting();

  // Makes the word that waiting kernels look at. REQUIRES: before any rank's GpuComm.
  bool Start(std::string& error);

  void Announce(int rank, const cuda::PeerMemory& memory) {
    memory_[static_cast<size_t>(rank)] = memory;
  }

  // Makes every kernel that waits for a peer give up. From any thread.
  void Abort();
  const std::atomic<bool>& aborted() const { return aborted_; }

  // Written by rank 0 between two meetings of the host threads, then read by all.
  AllReduceTable table;

 private:
  friend class GpuComm;
  std::vector<cuda::PeerMemory> memory_;
  uint32_t* abort_ = nullptr;  // Pinned: for the kernels.
  std::atomic<bool> aborted_{false};
};

class GpuComm {
 public:
  // REQUIRES: every rank has announced its memory. `meetings`: zeroed memory of
  // this rank's GPU, kPeerBlocksMax words. `library` may be empty. `blocks_max`: the
  // same on every rank, PeerBlocks() of the GPU that most of them share.
  GpuComm(GpuMeeting& meeting, int rank, uint32_t* meetings, LibrarySum library,
          int32_t blocks_max = cuda::kPeerBlocksMax);

  int rank() const { return group_.rank; }
  int size() const { return group_.size; }
  bool has_library() const { return library_ != nullptr; }
  const AllReduceTable& table() const { return meeting_.table; }

  // norm.x, which is this rank's branch[buffer], is summed over the ranks; then as
  // RmsNorm. REQUIRES: buffers alternate from call to call between two gathers.
  cuda::GpuError SumAndNorm(int buffer, const cuda::RmsNormCall& norm, cuda::Stream stream);
  cuda::GpuError SumAndNormBy(AllReduceWay way, int buffer, const cuda::RmsNormCall& norm,
                              cuda::Stream stream);

  // to[places[i].token] becomes what rank 0 chose last as that sample; on every rank.
  cuda::GpuError TakeTokens(const cuda::TokenPlace* places, int32_t count, int32_t* to,
                            cuda::Stream stream) {
    return cuda::TakeTokens(group_, places, count, to, stream);
  }

  // all[rank * count + i] becomes that rank's logits[i], where `all` is not null.
  cuda::GpuError GatherLogits(int64_t count, float* all, cuda::Stream stream);

 private:
  GpuMeeting& meeting_;
  cuda::PeerGroup group_{};
  LibrarySum library_;
};

}  // namespace penstock::engine
