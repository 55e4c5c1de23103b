// The door to GPUs for whoever opens a model, the same in every build: is there
// a GPU that we can use, and a Runner on it. Behind it stands gpu_device.cc (CUDA,
// or the emulated GPU in tests) or, in a build without CUDA, absent_device.cc.
#pragma once

#include <memory>
#include <string>

#include "backend-engine/exec/gpu_runner.h"

namespace penstock::engine {

struct GpuDevice {
  int gpus = 0;         // That can be used; 0: none.
  std::string name;     // Of the first: "NVIDIA H200".
  std::string why_not;  // Where there is none: "this build has no CUDA device", "no GPU (...)".
};

GpuDevice FindGpuDevice();

// GpuRunner::Create; `notes` becomes what was decided at start, in lines.
std::unique_ptr<Runner> OpenGpuRunner(const ModelConfig& config, const TensorSource& source,
                                      const GpuRunnerOptions& options, std::string& notes,
                                      std::string& error);

}  // namespace penstock::engine
