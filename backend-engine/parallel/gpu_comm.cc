#include "backend-engine/parallel/gpu_comm.h"

#include <atomic>
#include <utility>

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
  aborted_.store(true, std::memory_order_release);
  if (abort_ != nullptr) std::atomic_ref(*abort_).store(1, std::memory_order_release);
}

GpuComm::GpuComm(GpuMeeting& meeting, int rank, uint32_t* meetings, LibrarySum library,
                 int32_t blocks_max)
    : meeting_(meeting), library_(std::move(library)) {
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

cuda::GpuError GpuComm::SumAndNormBy(AllReduceWay way, int buffer, const cuda::RmsNormCall& norm,
                                     cuda::Stream stream) {
  if (size() == 1) return cuda::RmsNorm(norm, stream);
  const int64_t count = int64_t{norm.token_count} * norm.width;
  cuda::GpuError error = cuda::kGpuOk;
  switch (way) {
    case AllReduceWay::kOneShot:
      return cuda::PeerSumAndNorm(group_, buffer, norm, stream);
    case AllReduceWay::kTwoShot:
      error = cuda::PeerSum(group_, buffer, count, stream);
      break;
    case AllReduceWay::kNccl:
      if (!library_ || !library_(group_.of[rank()].branch[buffer], count)) {
        return cuda::kGpuInvalid;
      }
      break;
    case AllReduceWay::kHierarchical: return cuda::kGpuInvalid;  // Ranks of one process, one host.
  }
  return error != cuda::kGpuOk ? error : cuda::RmsNorm(norm, stream);
}

cuda::GpuError GpuComm::GatherLogits(int64_t count, float* all, cuda::Stream stream) {
  return size() == 1 ? cuda::kGpuOk : cuda::PeerGather(group_, count, all, stream);
}

}  // namespace penstock::engine
