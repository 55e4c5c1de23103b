// What the checks of the kernels share: is there a GPU, and memory on it.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdio>
#include <cstdlib>
#include <vector>

namespace penstock::engine {

// Ends the check, as a failure, where CUDA refuses a call.
inline void Must(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  std::fprintf(stderr, "%s: %s\n", what, cudaGetErrorString(error));
  std::exit(1);
}

// Ends the check, as skipped, where there is no GPU or no driver for it.
inline void SkipWithoutGpu() {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error == cudaSuccess && count > 0) return;
  std::printf("skipped: no GPU (%s)\n", cudaGetErrorString(error));
  std::exit(0);
}

// An array on the GPU.
template <typename T>
class DeviceArray {
 public:
  explicit DeviceArray(const std::vector<T>& values) : count_(values.size()) {
    Must(cudaMalloc(&data_, count_ * sizeof(T)), "cudaMalloc");
    Must(cudaMemcpy(data_, values.data(), count_ * sizeof(T), cudaMemcpyHostToDevice), "cudaMemcpy");
  }
  ~DeviceArray() { cudaFree(data_); }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;

  T* data() { return static_cast<T*>(data_); }

  // Waits for the GPU and copies the values back.
  std::vector<T> Values() const {
    std::vector<T> values(count_);
    Must(cudaDeviceSynchronize(), "kernel");
    Must(cudaMemcpy(values.data(), data_, count_ * sizeof(T), cudaMemcpyDeviceToHost), "cudaMemcpy");
    return values;
  }

 private:
  void* data_ = nullptr;
  size_t count_;
};

}  // namespace penstock::engine
