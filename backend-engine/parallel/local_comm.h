// Comm among threads of one process.
//
// Small sums go through a shared slot a rank and one meeting; large ones are
// added in place, each rank a slice of everybody's buffer, between two
// meetings. A meeting spins briefly and then sleeps.
#pragma once

#include <atomic>
#include <memory>
#include <vector>

#include "backend-engine/parallel/comm.h"

namespace penstock::engine {

// The ranks' meeting place. Outlives every Comm made from it.
class LocalGroup {
 public:
  explicit LocalGroup(int size);

  // The Comm of one rank. REQUIRES: called once a rank.
  std::unique_ptr<Comm> MakeComm(int rank);

  // From any thread: see Comm::Abort.
  void Abort();
  bool aborted() const { return aborted_.load(std::memory_order_acquire); }

 private:
  class RankComm;

  // Sums of at most this many numbers take the slots.
  static constexpr int64_t kSlotCount = 4096;

  // Returns when all ranks have come, or false when the group was aborted.
  bool Meet();

  const int size_;
  std::atomic<int> arrived_{0};
  std::atomic<int> round_{0};
  std::atomic<bool> aborted_{false};
  std::vector<float> slots_;           // [2][size][kSlotCount]
  std::vector<float*> buffers_;        // [size]: what each rank brought to a large call.
};

}  // namespace penstock::engine
