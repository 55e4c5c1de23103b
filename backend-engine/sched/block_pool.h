// Who owns which block of the paged KV cache. The memory itself belongs to the
// Runner; this is its book-keeping, over one pool whose size never changes.
//
// Invariant: every block is in exactly one place, the free list or the table of
// the one sequence that owns it. CheckInvariant() proves it from scratch, and
// Give() refuses a block that is not the giver's.
//
// Nothing is allocated after construction, as long as the callers' tables have
// their capacity. Threads: the engine thread only.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "backend-engine/sched/step.h"

namespace penstock::engine {

class BlockPool {
 public:
  // REQUIRES: block_count > 0.
  explicit BlockPool(int32_t block_count);

  int32_t total() const { return static_cast<int32_t>(owner_.size()); }
  int32_t free_count() const { return static_cast<int32_t>(free_.size()); }
  int32_t used() const { return total() - free_count(); }

  // The owner of a block; 0 while it is free.
  SequenceId owner(int32_t block) const { return owner_[static_cast<size_t>(block)]; }

  // Appends `count` blocks to `table`, all or none; false if too few are free.
  // REQUIRES: owner is not 0.
  [[nodiscard]] bool Take(SequenceId owner, int32_t count, std::vector<int32_t>& table);

  // Takes all blocks of `table` back and empties it.
  void Give(SequenceId owner, std::vector<int32_t>& table);

  // Says what is wrong with the books, or nothing where they are right.
  std::string CheckInvariant() const;

 private:
  std::vector<int32_t> free_;       // A stack: the block used last is the warmest.
  std::vector<SequenceId> owner_;   // By block; 0 is free.
};

}  // namespace penstock::engine
