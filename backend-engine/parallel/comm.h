// What the ranks of one tensor-parallel group say to each other. Every rank
// makes the same calls in the same order; each call returns when this rank's
// part is done, or, where the numbers are a GPU's, when it is queued on the
// rank's stream.
//
// A call returns false when the group was aborted: its results mean nothing
// then, and no call after it will succeed. Abort() may come from any thread;
// everything else belongs to the rank's own thread.
#pragma once

#include <cstdint>

namespace penstock::engine {

class Comm {
 public:
  virtual ~Comm() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;

  // values[i] becomes the sum over all ranks: every rank ends with the same
  // bits. Added in rank order, where our own code adds.
  [[nodiscard]] virtual bool AllReduceSum(float* values, int64_t count) = 0;

  // all[rank * count + i] becomes that rank's mine[i]. A rank that has no use
  // for the result passes null.
  [[nodiscard]] virtual bool AllGather(const float* mine, int64_t count, float* all) = 0;

  // values of every rank become those of `root`.
  [[nodiscard]] virtual bool Broadcast(float* values, int64_t count, int root) = 0;

  [[nodiscard]] virtual bool Barrier() = 0;

  // Makes every waiting and every later call of every rank return false soon.
  virtual void Abort() = 0;
};

}  // namespace penstock::engine
