#include "tests/support/allocations.h"

#include <atomic>
#include <cstdlib>
#include <new>

namespace penstock {
namespace {
std::atomic<uint64_t> allocation_count{0};
std::atomic<uint64_t> failing{0};
}
uint64_t AllocationCount() { return allocation_count.load(std::memory_order_relaxed); }
void FailAllocation(uint64_t number) { failing = number; }
}  // namespace penstock

#ifndef PENSTOCK_SANITIZED
void* operator new(size_t size) {
  const uint64_t number = penstock::allocation_count.fetch_add(1, std::memory_order_relaxed) + 1;
  if (number == penstock::failing.load(std::memory_order_relaxed)) {
    if (const std::new_handler handler = std::get_new_handler()) handler();
    std::abort();
  }
  if (void* const memory = std::malloc(size == 0 ? 1 : size)) return memory;
  std::abort();
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }
#endif
