#include "proxy/base/arena.h"

#include <algorithm>

namespace penstock {

void* Arena::AllocateChunk(size_t bytes) {
  if (bytes > bytes_max_) return nullptr;
  const size_t size = std::max(chunk_bytes_, bytes);
  if (size > bytes_max_ - bytes_held_) return nullptr;
  // for_overwrite: what is asked for is written by whoever asked.
  chunks_.push_back({std::make_unique_for_overwrite<char[]>(size), size});
  bytes_held_ += size;
  chunk_ = chunks_.back().memory.get();
  room_ = size;
  used_ = bytes;
  return chunk_;
}

std::string_view Arena::Copy(std::string_view text) {
  char* const memory = static_cast<char*>(Allocate(text.size(), 1));
  if (memory == nullptr) return {};
  text.copy(memory, text.size());
  return {memory, text.size()};
}

void Arena::Reset() {
  used_ = 0;
  if (chunks_.empty()) return;
  chunks_.resize(chunks_[0].size > chunk_bytes_ ? 0 : 1);
  chunk_ = chunks_.empty() ? nullptr : chunks_[0].memory.get();
  bytes_held_ = room_ = chunks_.empty() ? 0 : chunks_[0].size;
}

}  // namespace penstock
