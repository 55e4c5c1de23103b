// What `--device` means on this machine, and why: decided from what was asked
// for and what there is.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "backend-engine/api/serve_options.h"
#include "backend-engine/exec/gpu_device.h"

namespace penstock::engine {

struct DeviceChoice {
  std::string name;    // cpu, cuda or emulated.
  std::string note;    // For the log: "device cpu (auto: this build has no CUDA device)".
  bool may_be_cpu = false;  // Where the GPU cannot serve the model, the CPU may (auto).
};

// `gpu`: what FindGpuDevice() found; not looked at unless cuda or auto is asked for.
absl::StatusOr<DeviceChoice> ChooseDevice(const ServeOptions& options, const GpuDevice& gpu);

// The choice once the GPU has turned the model down, for the reason given.
DeviceChoice CpuAfterAll(const std::string& reason);

}  // namespace penstock::engine
