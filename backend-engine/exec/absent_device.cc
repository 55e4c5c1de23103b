// gpu_device.h in a build without CUDA.
#include "backend-engine/exec/gpu_device.h"

namespace penstock::engine {

GpuDevice FindGpuDevice() { return {.gpus = 0, .name = "", .why_not = "this build has no CUDA device"}; }

std::unique_ptr<Runner> OpenGpuRunner(const ModelConfig&, const TensorSource&,
                                      const GpuRunnerOptions&, std::string&, std::string& error) {
  error = FindGpuDevice().why_not;
  return nullptr;
}

}  // namespace penstock::engine
