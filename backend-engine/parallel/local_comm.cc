#include "backend-engine/parallel/local_comm.h"

#include <algorithm>
#include <cstring>

#include "backend-engine/parallel/wait.h"

namespace penstock::engine {

LocalGroup::LocalGroup(int size)
    : size_(size),
      slots_(static_cast<size_t>(2 * size * kSlotCount)),
      buffers_(static_cast<size_t>(size)) {}

void LocalGroup::Abort() {
  aborted_.store(true, std::memory_order_release);
  round_.fetch_add(1, std::memory_order_acq_rel);
  round_.notify_all();
}

bool LocalGroup::Meet() {
  // The round is read before the flag: an abort that this misses has not yet
  // changed the round, and will.
  const int round = round_.load(std::memory_order_acquire);
  if (aborted()) return false;
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == size_) {
    arrived_.store(0, std::memory_order_relaxed);
    round_.fetch_add(1, std::memory_order_acq_rel);
    round_.notify_all();
  } else {
    WaitWhile(round_, round);
  }
  return !aborted();
}

class LocalGroup::RankComm final : public Comm {
 public:
  RankComm(LocalGroup& group, int rank) : group_(group), rank_(rank) {}

  int rank() const override { return rank_; }
  int size() const override { return group_.size_; }

  bool AllReduceSum(float* values, int64_t count) override {
    if (size() == 1) return !group_.aborted();
    return count <= kSlotCount ? SumInSlots(values, count) : SumInPlace(values, count);
  }

  bool AllGather(const float* mine, int64_t count, float* all) override {
    // Never written through: only read by the others.
    group_.buffers_[static_cast<size_t>(rank_)] = const_cast<float*>(mine);
    if (!group_.Meet()) return false;
    if (all != nullptr) {
      for (int rank = 0; rank < size(); ++rank) {
        std::memcpy(all + rank * count, group_.buffers_[static_cast<size_t>(rank)],
                    static_cast<size_t>(count) * sizeof(float));
      }
    }
    return group_.Meet();
  }

  bool Broadcast(float* values, int64_t count, int root) override {
    if (rank_ == root) group_.buffers_[static_cast<size_t>(root)] = values;
    if (!group_.Meet()) return false;
    if (rank_ != root) {
      std::memcpy(values, group_.buffers_[static_cast<size_t>(root)],
                  static_cast<size_t>(count) * sizeof(float));
    }
    return group_.Meet();
  }

  bool Barrier() override { return group_.Meet(); }
  void Abort() override { group_.Abort(); }

 private:
  // One meeting is enough: nobody writes a slot of this turn's half again
  // before having passed the next turn's meeting, and by then all have read.
  bool SumInSlots(float* values, int64_t count) {
    float* half = group_.slots_.data() + (turn_++ % 2) * size() * kSlotCount;
    std::copy_n(values, count, half + rank_ * kSlotCount);
    if (!group_.Meet()) return false;
    std::copy_n(half, count, values);
    for (int rank = 1; rank < size(); ++rank) {
      const float* other = half + rank * kSlotCount;
      for (int64_t i = 0; i < count; ++i) values[i] += other[i];
    }
    return true;
  }

  // This rank's slice of all buffers belongs to it alone between the meetings.
  bool SumInPlace(float* values, int64_t count) {
    group_.buffers_[static_cast<size_t>(rank_)] = values;
    if (!group_.Meet()) return false;
    const int64_t first = count * rank_ / size();
    const int64_t end = count * (rank_ + 1) / size();
    float* sum = group_.buffers_[0];
    for (int rank = 1; rank < size(); ++rank) {
      const float* other = group_.buffers_[static_cast<size_t>(rank)];
      for (int64_t i = first; i < end; ++i) sum[i] += other[i];
    }
    for (int rank = 1; rank < size(); ++rank) {
      float* other = group_.buffers_[static_cast<size_t>(rank)];
      std::copy(sum + first, sum + end, other + first);
    }
    return group_.Meet();
  }

  LocalGroup& group_;
  const int rank_;
  int64_t turn_ = 0;
};

std::unique_ptr<Comm> LocalGroup::MakeComm(int rank) {
  return std::make_unique<RankComm>(*this, rank);
}

}  // namespace penstock::engine
