// Memory that is given out in pieces and taken back all at once: whatever lives
// exactly as long as one exchange. After the first use Reset() keeps the first
// chunk, so that the next exchange allocates nothing.
//
// Threads: one owner. What it holds is never destroyed: trivial types only.
#pragma once

#include <cstddef>
#include <memory>
#include <new>
#include <span>
#include <string_view>
#include <type_traits>
#include <vector>

namespace penstock {

class Arena {
 public:
  Arena(size_t chunk_bytes, size_t bytes_max) : chunk_bytes_(chunk_bytes), bytes_max_(bytes_max) {}
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  // nullptr: `bytes_max` would be exceeded.
  void* Allocate(size_t bytes, size_t alignment = alignof(std::max_align_t)) {
    const size_t start = (used_ + alignment - 1) & ~(alignment - 1);
    if (chunk_ == nullptr || start > room_ || bytes > room_ - start) return AllocateChunk(bytes);
    used_ = start + bytes;
    return chunk_ + start;
  }

  // A copy that lives until Reset(); a view without data() where the limit is reached.
  std::string_view Copy(std::string_view text);

  // `count` default-initialised values, or an empty span where the limit is reached.
  template <typename T>
  std::span<T> Array(size_t count) {
    static_assert(std::is_trivially_destructible_v<T>);
    if (count > bytes_max_ / sizeof(T)) return {};
    void* const memory = Allocate(count * sizeof(T), alignof(T));
    if (memory == nullptr) return {};
    return {new (memory) T[count], count};
  }

  void Reset();
  size_t bytes_held() const { return bytes_held_; }   // Of all chunks.

 private:
  void* AllocateChunk(size_t bytes);

  struct Chunk {
    std::unique_ptr<char[]> memory;
    size_t size = 0;
  };

  const size_t chunk_bytes_;
  const size_t bytes_max_;
  size_t bytes_held_ = 0;
  char* chunk_ = nullptr;       // The last one,
  size_t room_ = 0;             // how large it is,
  size_t used_ = 0;             // and how much of it is given out.
  std::vector<Chunk> chunks_;
};

}  // namespace penstock
