// What the ranks' GPUs say to each other, queued on a rank's stream: sums over
// the ranks by our own kernels (peers.h) or by NCCL, whichever the table says is
// faster for the size, and the logits to rank 0.
//
// GpuMeeting is the common part of a process's ranks; a GpuComm is one rank's. The
// ranks of a process are threads; several may share one GPU, and then there is no
// NCCL between them. Ranks of other processes are reached by NCCL alone: the rank
// of the same number in each of them is this one's counterpart.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

#include "backend-engine/kernels/cuda/peers.h"
#include "backend-engine/parallel/all_reduce_choice.h"
#include "backend-engine/parallel/nccl_comm.h"

namespace penstock::engine {

// NCCL as a rank has it. Ranks are counted process by process.
struct GpuLibrary {
  NcclComm* all = nullptr;           // Over all ranks; null: there is none.
  NcclComm* counterparts = nullptr;  // Over this rank's, by process; null in a process alone.
  int processes = 1;
};

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
  // this rank's GPU, kPeerBlocksMax words. `blocks_max`: the same on every rank,
  // PeerBlocks() of the GPU that most of them share. REQUIRES: `library` outlives it, and
  // has both where there are several processes.
  GpuComm(GpuMeeting& meeting, int rank, uint32_t* meetings, const GpuLibrary& library,
          int32_t blocks_max = cuda::kPeerBlocksMax);

  int rank() const { return group_.rank; }  // Of this process's.
  int size() const { return group_.size; }
  std::vector<AllReduceWay> Ways() const;   // Of summing, that these ranks have.
  const AllReduceTable& table() const { return meeting_.table; }

  // norm.x, which is this rank's branch[buffer], is summed over the ranks; then as
  // RmsNorm. REQUIRES: buffers alternate from call to call between two gathers.
  cuda::GpuError SumAndNorm(int buffer, const cuda::RmsNormCall& norm, cuda::Stream stream);
  cuda::GpuError SumAndNormBy(AllReduceWay way, int buffer, const cuda::RmsNormCall& norm,
                              cuda::Stream stream);

  // The first `count` of what rank 0 chose last come to `sampled` of the first rank of each
  // process, where TakeTokens() finds them. Of first ranks alone; nothing in a process alone.
  cuda::GpuError ShareSampled(cuda::SampledRow* sampled, int32_t count);

  // to[places[i].token] becomes what rank 0 chose last as that sample; on every rank.
  cuda::GpuError TakeTokens(const cuda::TokenPlace* places, int32_t count, int32_t* to,
                            cuda::Stream stream) {
    return cuda::TakeTokens(group_, places, count, to, stream);
  }

  // On rank 0, all[rank * count + i] becomes that rank's logits[i]. The first rank of each
  // other process gathers its process's in its own `all` on the way, where they are several.
  cuda::GpuError GatherLogits(int64_t count, float* all, cuda::Stream stream);

 private:
  cuda::GpuError SumByProcesses(int buffer, const cuda::RmsNormCall& norm, cuda::Stream stream);

  GpuMeeting& meeting_;
  cuda::PeerGroup group_{};
  const GpuLibrary library_;
};

}  // namespace penstock::engine
