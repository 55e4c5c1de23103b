#include "backend-engine/parallel/gpu_comm.h"

#include <atomic>

namespace penstock::engine {

GpuMeeting::~GpuMeeting() {
  if (abort_ != nullptr) cuda::FreePinned(abort_);
}

bool GpuMeeting::Start(std::string& error) {
  if (memory_.size() > static_cast<size_t>(cuda::kPeersMax)) {
    error = "tensor parallel " + std::to_string(memory_.size()) + ": at most " +
            std::to_string(cuda::kPeersMax) + " GPU ranks of one machine";
    return false;
  }
  void* word = nullptr;
  const cuda::GpuError failed = cuda::AllocatePinned(sizeof *abort_, &word);
  if (failed != cuda::kGpuOk) {
    error = "pinned memory: " + cuda::ErrorText(failed);
    return false;
  }
  abort_ = static_cast<uint32_t*>(word);
  *abort_ = 0;
  return true;
}

void GpuMeeting::Abort() {
  aborted_.store(true);
  if (abort_ != nullptr) std::atomic_ref(*abort_).store(1, std::memory_order_release);
}

GpuComm::GpuComm(GpuMeeting& meeting, int rank, uint32_t* meetings, const GpuLibrary& library,
                 int32_t blocks_max)
    : meeting_(meeting), library_(library) {
  group_.rank = rank;
  group_.blocks_max = blocks_max;
  group_.size = static_cast<int32_t>(meeting.memory_.size());
  for (size_t i = 0; i < meeting.memory_.size(); ++i) group_.of[i] = meeting.memory_[i];
  group_.meetings = meetings;
  group_.abort = meeting.abort_;
}

cuda::GpuError GpuComm::SumAndNorm(int buffer, const cuda::RmsNormCall& norm,
                                   cuda::Stream stream) {
  const int64_t bytes = int64_t{norm.token_count} * norm.width * 2;
  return SumAndNormBy(meeting_.table.Best(bytes), buffer, norm, stream);
}

std::vector<AllReduceWay> GpuComm::Ways() const {
  return WaysFor({std::vector<int>(static_cast<size_t>(library_.processes), size()), true,
                  library_.all != nullptr});
}

cuda::GpuError GpuComm::SumAndNormBy(AllReduceWay way, int buffer, const cuda::RmsNormCall& norm,
                                     cuda::Stream stream) {
  const bool alone = library_.processes == 1;
  if (alone && size() == 1) return cuda::RmsNorm(norm, stream);
  switch (way) {
    case AllReduceWay::kOneShot:
      if (alone) return cuda::PeerSumAndNorm(group_, buffer, norm, stream);
      break;
    case AllReduceWay::kTwoShot:
      if (alone) return cuda::PeerSumPartsAndNorm(group_, buffer, norm, stream);
      break;
    case AllReduceWay::kNccl:
      if (library_.all != nullptr &&
          library_.all->AllReduceSumBf16(group_.of[rank()].branch[buffer],
                                         int64_t{norm.token_count} * norm.width)) {
        return cuda::RmsNorm(norm, stream);
      }
      break;
    case AllReduceWay::kHierarchical:
      if (!alone) return SumByProcesses(buffer, norm, stream);
      break;
  }
  return cuda::kGpuInvalid;
}

// A part is the same numbers on every counterpart, as processes have as many ranks.
cuda::GpuError GpuComm::SumByProcesses(int buffer, const cuda::RmsNormCall& norm,
                                       cuda::Stream stream) {
  const int64_t count = int64_t{norm.token_count} * norm.width;
  const cuda::GpuError summed = cuda::PeerSumParts(group_, buffer, count, stream);
  if (summed != cuda::kGpuOk) return summed;
  const cuda::PeerPart part = cuda::PartOf(group_.rank, group_.size, count);
  if (part.count > 0 && !library_.counterparts->AllReduceSumBf16(
                            group_.of[rank()].branch[buffer] + part.first, part.count)) {
    return cuda::kGpuInvalid;
  }
  return cuda::PeerTakePartsAndNorm(group_, buffer, norm, stream);
}

cuda::GpuError GpuComm::ShareSampled(cuda::SampledRow* sampled, int32_t count) {
  if (library_.processes == 1 || rank() != 0 || count == 0) return cuda::kGpuOk;
  static_assert(sizeof(cuda::SampledRow) % sizeof(float) == 0);
  // Bits, that nobody adds up.
  const auto words = int64_t{count} * static_cast<int64_t>(sizeof(cuda::SampledRow) / sizeof(float));
  return library_.counterparts->Broadcast(reinterpret_cast<float*>(sampled), words, 0)
             ? cuda::kGpuOk
             : cuda::kGpuInvalid;
}

cuda::GpuError GpuComm::GatherLogits(int64_t count, float* all, cuda::Stream stream) {
  if (size() > 1) {
    const cuda::GpuError error = cuda::PeerGather(group_, count, all, stream);
    if (error != cuda::kGpuOk) return error;
  }
  if (library_.processes == 1 || rank() != 0) return cuda::kGpuOk;
  const float* mine = size() > 1 ? all : group_.of[0].logits;
  return library_.counterparts->Gather(mine, count * size(), all) ? cuda::kGpuOk
                                                                  : cuda::kGpuInvalid;
}

}  // namespace penstock::engine
