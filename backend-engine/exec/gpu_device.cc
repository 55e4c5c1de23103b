#include "backend-engine/exec/gpu_device.h"

#include "backend-engine/kernels/cuda/gpu.h"

namespace penstock::engine {

namespace {
constexpr int kCapabilityMin = 80;  // bf16 and cp.async; what the kernels are compiled for.
}

GpuDevice FindGpuDevice() {
  GpuDevice device;
  int count = 0;
  const cuda::GpuError counted = cuda::CountGpus(count);
  if (counted != cuda::kGpuOk || count == 0) {
    device.why_not = "no GPU can be used (" +
                     (counted != cuda::kGpuOk ? cuda::ErrorText(counted) : "there is none") + ")";
    return device;
  }
  cuda::GpuDescription first;
  if (const auto failed = cuda::DescribeGpu(0, first); failed != cuda::kGpuOk) {
    device.why_not = "GPU 0 cannot be used (" + cuda::ErrorText(failed) + ")";
  } else if (first.capability < kCapabilityMin) {
    device.why_not = "GPU 0 (" + first.name + ") is too old: compute capability " +
                     std::to_string(first.capability / 10) + "." +
                     std::to_string(first.capability % 10) + ", 8.0 needed";
  } else {
    device.gpus = count;
    device.name = first.name;
  }
  return device;
}

std::unique_ptr<Runner> OpenGpuRunner(const ModelConfig& config, const TensorSource& source,
                                      const GpuRunnerOptions& options, std::string& notes,
                                      std::string& error) {
  auto runner = GpuRunner::Create(config, source, options, error);
  if (runner != nullptr) notes = runner->notes();
  return runner;
}

}  // namespace penstock::engine
