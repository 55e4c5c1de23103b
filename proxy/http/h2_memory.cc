#include "proxy/http/h2_memory.h"

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <utility>

namespace penstock {
namespace {

constexpr size_t kSmallest = 64;
constexpr size_t kClasses = 5;          // 64, 128, ... 1024 bytes.
constexpr size_t kLargest = kSmallest << (kClasses - 1);
constexpr uint32_t kKept = 256;         // Blocks of one class: half a MiB a thread in all.

// A sanitizer sees each block by itself.
#ifdef PENSTOCK_SANITIZED
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif

// Stands before each block.
struct alignas(std::max_align_t) Label {
  size_t room;                          // Of the block.
  Label* next;                          // While it is free.
};

// Trivial, so that blocks may come back while the thread ends.
struct Free {
  std::array<Label*, kClasses> first;
  std::array<uint32_t, kClasses> count;
  bool ended;
};
thread_local constinit Free free_blocks{};

struct AtThreadEnd {
  ~AtThreadEnd() {
    free_blocks.ended = true;
    for (Label*& first : free_blocks.first) {
      while (first != nullptr) std::free(std::exchange(first, first->next));
    }
  }
};

size_t ClassOf(size_t size) {
  return size <= kSmallest ? 0 : static_cast<size_t>(std::bit_width((size - 1) / kSmallest));
}

void* Allocate(size_t size, void*) {
  Label* label = nullptr;
  if (size <= kLargest) {
    const size_t of = ClassOf(size);
    size = kSmallest << of;
    label = free_blocks.first[of];
    if (label != nullptr) {
      free_blocks.first[of] = label->next;
      --free_blocks.count[of];
      return label + 1;
    }
  }
  if (size > SIZE_MAX - sizeof(Label)) return nullptr;
  label = static_cast<Label*>(std::malloc(sizeof(Label) + size));
  if (label == nullptr) return nullptr;
  label->room = size;
  return label + 1;
}

void Release(void* block, void*) {
  if (block == nullptr) return;
  Label* const label = static_cast<Label*>(block) - 1;
  if (label->room <= kLargest && !free_blocks.ended) {
    thread_local const AtThreadEnd at_end;
    const size_t of = ClassOf(label->room);
    if (free_blocks.count[of] < kKept) {
      label->next = free_blocks.first[of];
      free_blocks.first[of] = label;
      ++free_blocks.count[of];
      return;
    }
  }
  std::free(label);
}

void* AllocateZeroed(size_t count, size_t size, void* user) {
  if (size != 0 && count > SIZE_MAX / size) return nullptr;
  void* const block = Allocate(count * size, user);
  if (block != nullptr) std::memset(block, 0, count * size);
  return block;
}

void* Resize(void* block, size_t size, void* user) {
  if (block == nullptr) return Allocate(size, user);
  const size_t room = (static_cast<Label*>(block) - 1)->room;
  if (size <= room) return block;
  void* const larger = Allocate(size, user);
  if (larger == nullptr) return nullptr;
  std::memcpy(larger, block, room);
  Release(block, user);
  return larger;
}

}  // namespace

nghttp2_mem* H2Memory() {
  static nghttp2_mem memory{nullptr, Allocate, Release, AllocateZeroed, Resize};
  return kSanitized ? nullptr : &memory;
}

}  // namespace penstock
