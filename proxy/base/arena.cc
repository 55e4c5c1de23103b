#include "proxy/base/arena.h"

#include <algorithm>

namespace penstock {

void* Arena::Allocate(size_t bytes, size_t alignment) {
  if (bytes > bytes_max_) return nullptr;
  if (!chunks_.empty()) {
    Chunk& chunk = chunks_.back();
    const size_t start = (used_ + alignment - 1) / alignment * alignment;
    if (start <= chunk.size && bytes <= chunk.size - start) {
      used_ = start + bytes;
      return chunk.memory.get() + start;
    }
  }
  const size_t size = std::max(chunk_bytes_, bytes);
  if (size > bytes_max_ - bytes_held_) return nullptr;
  // for_overwrite: what is asked for is written by whoever asked.
  chunks_.push_back({std::make_unique_for_overwrite<char[]>(size), size});
  bytes_held_ += size;
  used_ = bytes;
  return chunks_.back().memory.get();
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
  bytes_held_ = chunks_.empty() ? 0 : chunks_[0].size;
}

}  // namespace penstock
