#include "backend-engine/parallel/nccl_comm.h"

#include <cuda_runtime_api.h>
#include <nccl.h>

#include <algorithm>
#include <cstring>
#include <mutex>
#include <thread>
#include <utility>

#include "backend-engine/parallel/last_call.h"

namespace penstock::engine {

static_assert(NcclComm::kIdBytes == NCCL_UNIQUE_ID_BYTES);

namespace {

// As NCCL has it; `comm` may be null.
std::string ReasonOf(ncclResult_t result, ncclComm_t comm) {
  std::string reason = std::string("NCCL: ") + ncclGetErrorString(result);
  const char* last = ncclGetLastError(comm);
  if (last != nullptr && *last != '\0') reason += std::string(", ") + last;
  return reason;
}

}  // namespace

// The communicator may be taken away under a call by Abort(), so every use of it
// is under the lock, and short: nothing blocks.
class NcclComm::State {
 public:
  State(int rank, int size, cuda::Stream stream, const std::atomic<bool>& stop)
      : rank_(rank), size_(size), stream_(stream), stop_(stop) {}

  ~State() {
    Abort();
    end_.Wait();
    if (word_ != nullptr) cuda::Free(word_);
  }

  bool Start(const ncclUniqueId& id, std::string& error) {
    void* word = nullptr;
    if (const auto failed = cuda::Allocate(sizeof *word_, &word); failed != cuda::kGpuOk) {
      error = cuda::ErrorText(failed);
      return false;
    }
    word_ = static_cast<float*>(word);
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    const bool started = Finish([&](ncclComm_t& comm) {
      return ncclCommInitRankConfig(&comm, size_, id, rank_, &config);
    });
    if (!started) error = reason_.empty() ? "NCCL: aborted while the ranks met" : reason_;
    return started;
  }

  // Makes one call and waits until NCCL has taken it in.
  template <typename Call>
  bool Finish(const Call& call) {
    {
      const std::lock_guard lock(mutex_);
      if (aborted_ || !reason_.empty()) return false;
      const ncclResult_t result = call(comm_);
      if (result == ncclSuccess) return true;
      if (result != ncclInProgress) return Fail(result);
    }
    while (true) {
      {
        const std::lock_guard lock(mutex_);
        if (aborted_) return false;
        ncclResult_t state = ncclSuccess;
        const ncclResult_t asked = ncclCommGetAsyncError(comm_, &state);
        if (asked != ncclSuccess) return Fail(asked);
        if (state == ncclSuccess) return true;
        if (state != ncclInProgress) return Fail(state);
      }
      if (stop_.load(std::memory_order_acquire)) {
        Abort();
        return false;
      }
      std::this_thread::yield();
    }
  }

  void Abort() {
    aborted_ = true;
    end_.Begin();
  }
  bool Gone(double seconds) const { return end_.Done(seconds); }

  bool Healthy(std::string& error) {
    const std::lock_guard lock(mutex_);
    ncclResult_t state = ncclSuccess;
    if (!aborted_ && reason_.empty()) {
      const ncclResult_t asked = ncclCommGetAsyncError(comm_, &state);
      if (asked != ncclSuccess) state = asked;
      if (state == ncclSuccess || state == ncclInProgress) return true;
      Fail(state);
    }
    error = reason_.empty() ? "aborted" : reason_;
    return false;
  }

  int rank() const { return rank_; }
  int size() const { return size_; }
  cudaStream_t stream() const { return stream_; }
  float* word() const { return word_; }

 private:
  // Without the lock: it waits for graphs, and those who hold them may ask for it.
  void TakeApart() {
    ncclComm_t comm = nullptr;
    {
      const std::lock_guard lock(mutex_);
      comm = std::exchange(comm_, nullptr);
    }
    if (comm != nullptr) (void)ncclCommAbort(comm);
  }

  // REQUIRES: the lock is held.
  bool Fail(ncclResult_t result) {
    if (reason_.empty()) reason_ = ReasonOf(result, comm_);
    return false;
  }

  const int rank_, size_;
  const cuda::Stream stream_;
  const std::atomic<bool>& stop_;
  float* word_ = nullptr;  // For barriers.
  std::mutex mutex_;
  ncclComm_t comm_ = nullptr;
  std::atomic<bool> aborted_{false};
  std::string reason_;
  LastCall end_{[this] { TakeApart(); }};
};

bool NcclComm::Available() { return true; }

bool NcclComm::NewId(std::string& id, std::string& error) {
  ncclUniqueId unique;
  const ncclResult_t result = ncclGetUniqueId(&unique);
  if (result != ncclSuccess) {
    error = ReasonOf(result, nullptr);
    return false;
  }
  id.assign(unique.internal, kIdBytes);
  return true;
}

std::unique_ptr<NcclComm> NcclComm::Create(int rank, int size, const std::string& id,
                                           cuda::Stream stream, const std::atomic<bool>& stop,
                                           std::string& error) {
  if (id.size() != kIdBytes) {
    error = "the id of the NCCL group has " + std::to_string(id.size()) + " bytes, not " +
            std::to_string(kIdBytes);
    return nullptr;
  }
  ncclUniqueId unique;
  std::copy(id.begin(), id.end(), unique.internal);
  auto state = std::make_unique<State>(rank, size, stream, stop);
  if (!state->Start(unique, error)) return nullptr;
  return std::unique_ptr<NcclComm>(new NcclComm(std::move(state)));
}

NcclComm::NcclComm(std::unique_ptr<State> state) : state_(std::move(state)) {}
NcclComm::~NcclComm() = default;
int NcclComm::rank() const { return state_->rank(); }
int NcclComm::size() const { return state_->size(); }
void NcclComm::Abort() { state_->Abort(); }
bool NcclComm::Gone(double seconds) const { return state_->Gone(seconds); }
bool NcclComm::Healthy(std::string& error) { return state_->Healthy(error); }

bool NcclComm::AllReduceSum(float* values, int64_t count) {
  return state_->Finish([&](ncclComm_t comm) {
    return ncclAllReduce(values, values, static_cast<size_t>(count), ncclFloat32, ncclSum, comm,
                         state_->stream());
  });
}

bool NcclComm::AllReduceSumBf16(uint16_t* values, int64_t count) {
  return state_->Finish([&](ncclComm_t comm) {
    return ncclAllReduce(values, values, static_cast<size_t>(count), ncclBfloat16, ncclSum, comm,
                         state_->stream());
  });
}

bool NcclComm::AllGather(const float* mine, int64_t count, float* all) {
  if (all == nullptr) return false;
  return state_->Finish([&](ncclComm_t comm) {
    return ncclAllGather(mine, all, static_cast<size_t>(count), ncclFloat32, comm,
                         state_->stream());
  });
}

bool NcclComm::Gather(const float* mine, int64_t count, float* all) {
  const auto numbers = static_cast<size_t>(count);
  if (rank() == 0) {
    if (all == nullptr) return false;
    if (mine != all && cuda::CopyOnGpu(all, mine, count * int64_t{sizeof(float)},
                                       state_->stream()) != cuda::kGpuOk) {
      return false;
    }
  }
  return size() == 1 || state_->Finish([&](ncclComm_t comm) {
    const auto failed = [](ncclResult_t result) {
      return result != ncclSuccess && result != ncclInProgress;
    };
    ncclResult_t result = ncclGroupStart();
    if (failed(result)) return result;
    if (rank() != 0) result = ncclSend(mine, numbers, ncclFloat32, 0, comm, state_->stream());
    for (int other = 1; rank() == 0 && other < size() && !failed(result); ++other) {
      result = ncclRecv(all + other * count, numbers, ncclFloat32, other, comm, state_->stream());
    }
    const ncclResult_t ended = ncclGroupEnd();
    return failed(result) ? result : ended;
  });
}

bool NcclComm::Broadcast(float* values, int64_t count, int root) {
  return state_->Finish([&](ncclComm_t comm) {
    return ncclBroadcast(values, values, static_cast<size_t>(count), ncclFloat32, root, comm,
                         state_->stream());
  });
}

bool NcclComm::Barrier() { return AllReduceSum(state_->word(), 1); }

}  // namespace penstock::engine
