// gpu.h on this machine's processor: memory that begins as NaN, and copies. Memory of the
// host that is not pinned is copied as CUDA does it: what comes from there is taken at
// once, and what goes there has come when the call returns.
#include "backend-engine/kernels/cuda/gpu.h"

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <vector>

#include "backend-engine/kernels/cuda/emulated/recording.h"

namespace penstock::engine {
namespace {

constexpr int kGpusMax = 16;

// In bytes.
struct Memory {
  int64_t total = int64_t{8} << 30;
  int64_t allocated = 0;
};
struct Allocation {
  int gpu;
  int64_t bytes;
};

std::atomic<int> gpu_count{1};
thread_local int gpu_in_use = 0;
std::mutex mutex;
std::array<Memory, kGpusMax> memories;
std::map<void*, Allocation> allocations;
std::map<const std::byte*, int64_t> pinned;  // Bytes of each piece.

bool IsPinned(const void* at) {
  const std::lock_guard lock(mutex);
  auto next = pinned.upper_bound(static_cast<const std::byte*>(at));
  return next != pinned.begin() && (--next, at < next->first + next->second);
}

}  // namespace

namespace emulated {

void SetGpuMemory(int64_t bytes) {
  for (int gpu = 0; gpu < kGpusMax; ++gpu) SetGpuMemory(gpu, bytes);
}
void SetGpuMemory(int gpu, int64_t bytes) {
  const std::lock_guard lock(mutex);
  memories[static_cast<size_t>(gpu)].total = bytes;
}
void SetGpuCount(int count) { gpu_count = count; }

}  // namespace emulated

namespace cuda {

std::string ErrorText(GpuError error) { return "emulated GPU: error " + std::to_string(error); }

GpuError CountGpus(int& count) {
  count = gpu_count;
  return kGpuOk;
}

GpuError DescribeGpu(int gpu, GpuDescription& description) {
  if (gpu < 0 || gpu >= gpu_count) return kGpuInvalid;
  description = {.name = "emulated GPU",
                 .bus_id = "0000:0" + std::to_string(gpu % 10) + ":00.0",
                 .capability = 90, .sm_count = 4};
  return kGpuOk;
}

GpuError UseGpu(int gpu) {
  if (gpu < 0 || gpu >= gpu_count || gpu >= kGpusMax) return kGpuInvalid;
  gpu_in_use = gpu;
  return kGpuOk;
}

GpuError MemoryInfo(int64_t& free_bytes, int64_t& total_bytes) {
  const std::lock_guard lock(mutex);
  const Memory& own = memories[static_cast<size_t>(gpu_in_use)];
  total_bytes = own.total;
  free_bytes = own.total - own.allocated;
  return kGpuOk;
}

GpuError EnablePeer(int, int, bool& possible) {
  possible = true;
  return kGpuOk;
}

GpuError Allocate(int64_t bytes, void** memory) {
  const std::lock_guard lock(mutex);
  Memory& own = memories[static_cast<size_t>(gpu_in_use)];
  if (own.allocated + bytes > own.total) return kGpuOutOfMemory;
  // Of exactly this size, so that AddressSanitizer sees a step beyond it.
  if (posix_memalign(memory, 256, static_cast<size_t>(bytes)) != 0) return kGpuOutOfMemory;
  std::memset(*memory, 0xff, static_cast<size_t>(bytes));
  allocations[*memory] = {gpu_in_use, bytes};
  own.allocated += bytes;
  return kGpuOk;
}

void Free(void* memory) {
  if (memory == nullptr) return;
  const std::lock_guard lock(mutex);
  const auto found = allocations.find(memory);
  if (found == allocations.end()) std::abort();
  memories[static_cast<size_t>(found->second.gpu)].allocated -= found->second.bytes;
  allocations.erase(found);
  std::free(memory);
}

GpuError AllocatePinned(int64_t bytes, void** memory) {
  if (posix_memalign(memory, 256, static_cast<size_t>(bytes)) != 0) return kGpuOutOfMemory;
  std::memset(*memory, 0xff, static_cast<size_t>(bytes));
  const std::lock_guard lock(mutex);
  pinned[static_cast<const std::byte*>(*memory)] = bytes;
  return kGpuOk;
}
void FreePinned(void* memory) {
  {
    const std::lock_guard lock(mutex);
    if (memory != nullptr && pinned.erase(static_cast<const std::byte*>(memory)) == 0) std::abort();
  }
  std::free(memory);
}

namespace {
GpuError Copy(void* to, const void* from, int64_t bytes, Stream stream) {
  emulated::Perform(stream, [=] { std::memcpy(to, from, static_cast<size_t>(bytes)); });
  return kGpuOk;
}
}  // namespace

GpuError CopyToGpu(void* to, const void* from, int64_t bytes, Stream stream) {
  if (IsPinned(from)) return Copy(to, from, bytes, stream);
  const auto* first = static_cast<const std::byte*>(from);
  emulated::Perform(stream, [to, taken = std::vector<std::byte>(first, first + bytes)] {
    if (!taken.empty()) std::memcpy(to, taken.data(), taken.size());
  });
  return kGpuOk;
}
GpuError CopyToHost(void* to, const void* from, int64_t bytes, Stream stream) {
  const GpuError error = Copy(to, from, bytes, stream);
  return error == kGpuOk && !IsPinned(to) ? Synchronize(stream) : error;
}
GpuError CopyOnGpu(void* to, const void* from, int64_t bytes, Stream stream) {
  return Copy(to, from, bytes, stream);
}
GpuError FillBytes(void* memory, int byte, int64_t bytes, Stream stream) {
  emulated::Perform(stream, [=] { std::memset(memory, byte, static_cast<size_t>(bytes)); });
  return kGpuOk;
}

}  // namespace cuda
}  // namespace penstock::engine
