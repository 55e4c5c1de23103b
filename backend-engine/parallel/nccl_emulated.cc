// NcclComm on the emulated GPU: ranks of this machine's processes, over the
// loopback. Rank 0 of a group is its middle: it adds up in rank order, in fp32, and
// passes on. Each call says what it is, so that ranks that do not call alike fail
// at once, where NCCL would hang. As NCCL's, its abort waits for every graph alive that
// recorded a call; and it takes a little of the GPU's memory when it is first asked for a
// kind of call.
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <mutex>

#include "backend-engine/kernels/cuda/emulated/recording.h"
#include "backend-engine/kernels/dtype.h"
#include "backend-engine/parallel/frames.h"
#include "backend-engine/parallel/last_call.h"
#include "backend-engine/parallel/nccl_comm.h"

namespace penstock::engine {
namespace {

constexpr size_t kFrameMax = size_t{1} << 30;
constexpr int64_t kConnectionBytes = 64;
constexpr int kTickMs = 20;  // Between two looks at whether to give up.
enum Word : uint32_t { kHello = 100, kSumF32, kSumBf16, kGather, kAllGather, kBroadcast };

std::mutex doors_mutex;
std::map<std::string, FrameSocket> doors;  // Of groups whose rank 0 has not come, by id.
std::atomic<bool> refuses{false};

using Bytes = std::vector<std::byte>;

template <typename T>
std::span<const std::byte> BytesOf(const T* values, int64_t count) {
  return std::as_bytes(std::span(values, static_cast<size_t>(count)));
}

}  // namespace

namespace emulated {
void RefuseNccl(bool refuse) { refuses = refuse; }
}  // namespace emulated

class NcclComm::State {
 public:
  State(int rank, int size, const std::string& id, cuda::Stream stream,
        const std::atomic<bool>& stop)
      : rank_(rank), size_(size), id_(id), stream_(stream), stop_(stop) {}
  ~State() {
    Abort();
    end_.Wait();
    for (const auto& [word, memory] : connected_) cuda::Free(memory);
  }

  bool Start(std::string& error) {
    if (size_ == 1 || (rank_ == 0 ? Gather() : Come())) return true;
    error = reason_.empty() ? "NCCL: aborted while the ranks met" : reason_;
    return false;
  }

  bool Perform(Word word, std::function<void()> work) {
    if (refuses) Fail("told to refuse");
    if (failed_) return false;
    if (void*& memory = connected_[word]; memory == nullptr) {
      if (cuda::Allocate(kConnectionBytes, &memory) != cuda::kGpuOk) return Fail("no memory");
    }
    emulated::Perform(stream_, [work = std::move(work), held = held_] { work(); });
    return !failed_;
  }

  // The middle adds up everybody's numbers and gives all the sum.
  template <typename T, typename Load, typename Store>
  void Sum(Word word, T* values, int64_t count, const Load& load, const Store& store) {
    const auto bytes = static_cast<size_t>(count) * sizeof(T);
    if (rank_ != 0) {
      if (Send(peers_[0], word, BytesOf(values, count)) && Take(peers_[0], word, bytes)) {
        std::memcpy(values, come_.data(), bytes);
      }
      return;
    }
    std::vector<float> sum(static_cast<size_t>(count));
    std::transform(values, values + count, sum.begin(), load);
    for (FrameSocket& peer : peers_) {
      if (!Take(peer, word, bytes)) return;
      for (size_t i = 0; i < sum.size(); ++i) {
        T other;
        std::memcpy(&other, come_.data() + i * sizeof(T), sizeof other);
        sum[i] += load(other);
      }
    }
    std::transform(sum.begin(), sum.end(), values, store);
    for (FrameSocket& peer : peers_) {
      if (!Send(peer, word, BytesOf(values, count))) return;
    }
  }

  void ToTheFirst(Word word, const float* mine, int64_t count, float* all) {
    if (rank_ != 0) {
      (void)Send(peers_[0], word, BytesOf(mine, count));
      return;
    }
    if (all != mine) std::memmove(all, mine, static_cast<size_t>(count) * sizeof(float));
    for (size_t i = 0; i < peers_.size(); ++i) {
      if (!Take(peers_[i], word, static_cast<size_t>(count) * sizeof(float))) return;
      std::memcpy(all + static_cast<int64_t>(i + 1) * count, come_.data(), come_.size());
    }
  }

  void FromTheFirst(Word word, float* values, int64_t count) {
    for (FrameSocket& peer : peers_) {
      if (rank_ == 0 ? !Send(peer, word, BytesOf(values, count))
                     : !Take(peer, word, static_cast<size_t>(count) * sizeof(float))) {
        return;
      }
      if (rank_ != 0) std::memcpy(values, come_.data(), come_.size());
    }
  }

  void Abort() {
    failed_ = true;
    end_.Begin();
  }
  bool Gone(double seconds) const { return end_.Done(seconds); }
  bool Healthy(std::string& error) const {
    if (!failed_) return true;
    const std::lock_guard lock(mutex_);
    error = reason_.empty() ? "aborted" : reason_;
    return false;
  }

  int rank() const { return rank_; }
  int size() const { return size_; }

 private:
  void WaitForGraphs() const {
    while (held_.use_count() > 1) (void)poll(nullptr, 0, 1);
  }

  bool GivesUp() const { return failed_ || stop_.load(std::memory_order_acquire); }

  bool Fail(const std::string& reason) {
    const std::lock_guard lock(mutex_);
    if (!failed_ && !stop_) reason_ = "NCCL (emulated): " + reason;
    failed_ = true;
    return false;
  }

  bool Send(FrameSocket& peer, uint32_t word, std::span<const std::byte> bytes) {
    return !GivesUp() && (peer.Send(word, bytes, [this] { return GivesUp(); }) ||
                          Fail("a rank has gone"));
  }

  bool Take(FrameSocket& peer, uint32_t word, size_t bytes) {
    uint32_t got = 0;
    for (FrameSocket::Read read = FrameSocket::Read::kNothing; read != FrameSocket::Read::kWhole;) {
      if (GivesUp()) return false;
      read = peer.Take(kFrameMax, got, come_);
      if (read == FrameSocket::Read::kNothing) {
        peer.Wait(kTickMs);
      } else if (read != FrameSocket::Read::kWhole) {
        return Fail("a rank has gone");
      }
    }
    if (got == word && come_.size() == bytes) return true;
    return Fail("ranks do not call alike: " + std::to_string(got) + " of " +
                std::to_string(come_.size()) + " bytes came, not " + std::to_string(word) + " of " +
                std::to_string(bytes));
  }

  bool Gather() {
    FrameSocket door;
    {
      const std::lock_guard lock(doors_mutex);
      const auto found = doors.find(id_);
      if (found == doors.end()) return Fail("rank 0 is not where the id was made");
      door = std::move(found->second);
      doors.erase(found);
    }
    peers_.resize(static_cast<size_t>(size_ - 1));
    for (int come = 1; come < size_;) {
      if (GivesUp()) return false;
      FrameSocket peer = door.Accept();
      if (!peer.open()) {
        door.Wait(kTickMs);
        continue;
      }
      int32_t rank = 0;
      if (!Take(peer, kHello, sizeof rank)) return false;
      std::memcpy(&rank, come_.data(), sizeof rank);
      if (rank < 1 || rank >= size_ || peers_[static_cast<size_t>(rank - 1)].open()) {
        return Fail("a rank came twice");
      }
      peers_[static_cast<size_t>(rank - 1)] = std::move(peer);
      ++come;
    }
    return true;
  }

  bool Come() {
    std::string why;
    const std::vector<InetAddress> found = Resolve(id_.c_str(), why);
    if (found.empty()) return Fail("an id of another program");
    FrameSocket first = FrameSocket::Dial(found[0], 1000);
    if (!first.open()) return Fail("rank 0 cannot be reached at " + std::string(id_.c_str()));
    const auto rank = static_cast<int32_t>(rank_);
    peers_.push_back(std::move(first));
    return Send(peers_[0], kHello, BytesOf(&rank, 1));
  }

  const int rank_, size_;
  const std::string id_;
  const cuda::Stream stream_;
  const std::atomic<bool>& stop_;
  std::map<Word, void*> connected_;  // Its memory, by kind of call.
  std::vector<FrameSocket> peers_;  // Rank 0: of ranks 1, 2, ...; they: rank 0.
  Bytes come_;
  std::atomic<bool> failed_{false};
  mutable std::mutex mutex_;
  std::string reason_;
  const std::shared_ptr<const int> held_ = std::make_shared<const int>();  // By all work that is noted.
  LastCall end_{[this] { WaitForGraphs(); }};
};

bool NcclComm::Available() { return true; }

// The id is the address at which this process waits for the ranks, in text.
bool NcclComm::NewId(std::string& id, std::string& error) {
  InetAddress address = InetAddress::Loopback();
  FrameSocket door = FrameSocket::ListenAt(address, 64);
  if (!door.open() || getsockname(door.file(), address.get(), &address.size) != 0) {
    error = "NCCL (emulated): no port to listen at";
    return false;
  }
  id = address.Text();
  id.resize(kIdBytes);
  const std::lock_guard lock(doors_mutex);
  doors[id] = std::move(door);
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
  auto state = std::make_unique<State>(rank, size, id, stream, stop);
  if (!state->Start(error)) return nullptr;
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
  return state_->Perform(kSumF32, [=, this] {
    state_->Sum(kSumF32, values, count, [](float value) { return value; },
                [](float value) { return value; });
  });
}

bool NcclComm::AllReduceSumBf16(uint16_t* values, int64_t count) {
  return state_->Perform(kSumBf16, [=, this] {
    state_->Sum(kSumBf16, values, count, FloatFromBf16, Bf16FromFloat);
  });
}

bool NcclComm::Gather(const float* mine, int64_t count, float* all) {
  if (all == nullptr && state_->rank() == 0) return false;
  return state_->Perform(kGather, [=, this] { state_->ToTheFirst(kGather, mine, count, all); });
}

bool NcclComm::AllGather(const float* mine, int64_t count, float* all) {
  if (all == nullptr) return false;
  return state_->Perform(kAllGather, [=, this] {
    state_->ToTheFirst(kAllGather, mine, count, all);
    state_->FromTheFirst(kAllGather, all, count * state_->size());
  });
}

bool NcclComm::Broadcast(float* values, int64_t count, int root) {
  if (root != 0) return false;  // Nobody asks for another one.
  return state_->Perform(kBroadcast, [=, this] { state_->FromTheFirst(kBroadcast, values, count); });
}

bool NcclComm::Barrier() {
  return state_->Perform(kSumF32, [this] {
    float word = 0;
    state_->Sum(kSumF32, &word, 1, [](float value) { return value; },
                [](float value) { return value; });
  });
}

}  // namespace penstock::engine
