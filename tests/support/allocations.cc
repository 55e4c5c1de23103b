#include "tests/support/allocations.h"

#include <atomic>
#include <cstdlib>
#include <new>

namespace penstock {
namespace {
std::atomic<uint64_t> allocation_count{0};
}
uint64_t AllocationCount() { return allocation_count.load(std::memory_order_relaxed); }
}  // namespace penstock

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
void* operator new(size_t size) {
  penstock::allocation_count.fetch_add(1, std::memory_order_relaxed);
  if (void* const memory = std::malloc(size == 0 ? 1 : size)) return memory;
  std::abort();
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }
#endif
