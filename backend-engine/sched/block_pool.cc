#include "backend-engine/sched/block_pool.h"

#include "backend-engine/sched/check.h"

namespace penstock::engine {

BlockPool::BlockPool(int32_t block_count) {
  ENGINE_CHECK(block_count > 0, "block_count %d", block_count);
  owner_.assign(static_cast<size_t>(block_count), 0);
  free_.reserve(static_cast<size_t>(block_count));
  for (int32_t block = block_count - 1; block >= 0; --block) free_.push_back(block);
}

bool BlockPool::Take(SequenceId owner, int32_t count, std::vector<int32_t>& table) {
  ENGINE_CHECK(owner != 0 && count >= 0, "owner %llu, count %d",
               static_cast<unsigned long long>(owner), count);
  if (count > free_count()) return false;
  for (int32_t i = 0; i < count; ++i) {
    const int32_t block = free_.back();
    free_.pop_back();
    owner_[static_cast<size_t>(block)] = owner;
    table.push_back(block);
  }
  return true;
}

void BlockPool::Give(SequenceId owner, std::vector<int32_t>& table) {
  // Last first, so that the next Take() hands them out in the same order.
  for (auto block = table.rbegin(); block != table.rend(); ++block) {
    SequenceId& found = owner_[static_cast<size_t>(*block)];
    ENGINE_CHECK(found == owner, "block %d is of sequence %llu, given back by %llu", *block,
                 static_cast<unsigned long long>(found), static_cast<unsigned long long>(owner));
    found = 0;
    free_.push_back(*block);
  }
  table.clear();
}

std::string BlockPool::CheckInvariant() const {
  std::vector<bool> listed(owner_.size(), false);
  for (const int32_t block : free_) {
    const auto index = static_cast<size_t>(block);
    if (index >= owner_.size()) return "free list holds block " + std::to_string(block);
    if (listed[index]) return "block " + std::to_string(block) + " is free twice";
    if (owner_[index] != 0) {
      return "block " + std::to_string(block) + " is free and of sequence " +
             std::to_string(owner_[index]);
    }
    listed[index] = true;
  }
  for (size_t index = 0; index < owner_.size(); ++index) {
    if (owner_[index] == 0 && !listed[index]) return "block " + std::to_string(index) + " is lost";
  }
  return "";
}

}  // namespace penstock::engine
