// An array in a GPU's memory, for checks. It begins as NaN (all bits set) where
// nothing is given, so that a number that was never written shows.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <vector>

#include "backend-engine/kernels/cuda/gpu.h"

namespace penstock::engine {

// Ends the check, as a failure, where the GPU refuses a call.
inline void Must(cuda::GpuError error, const char* what) {
  if (error == cuda::kGpuOk) return;
  std::fprintf(stderr, "%s: %s\n", what, cuda::ErrorText(error).c_str());
  std::exit(1);
}

template <typename T>
class GpuArray {
 public:
  explicit GpuArray(size_t count) : count_(count) {
    Must(cuda::Allocate(Bytes() + 1, &data_), "memory for a check");
    Must(cuda::FillBytes(data_, 0xff, Bytes(), nullptr), "poison");
    Must(cuda::Synchronize(nullptr), "poison");
  }
  explicit GpuArray(const std::vector<T>& values) : GpuArray(values.size()) {
    if (values.empty()) return;
    Must(cuda::CopyToGpu(data_, values.data(), Bytes(), nullptr), "copy to the GPU");
    Must(cuda::Synchronize(nullptr), "copy to the GPU");
  }
  ~GpuArray() { cuda::Free(data_); }
  GpuArray(const GpuArray&) = delete;
  GpuArray& operator=(const GpuArray&) = delete;

  T* data() { return static_cast<T*>(data_); }

  // Waits for what was queued and copies the values back.
  std::vector<T> Values() const {
    std::vector<T> values(count_);
    Must(cuda::Synchronize(nullptr), "a kernel");
    Must(cuda::CopyToHost(values.data(), data_, Bytes(), nullptr), "copy from the GPU");
    Must(cuda::Synchronize(nullptr), "copy from the GPU");
    return values;
  }

 private:
  int64_t Bytes() const { return static_cast<int64_t>(count_ * sizeof(T)); }

  void* data_ = nullptr;
  size_t count_;
};

}  // namespace penstock::engine
