#include "backend-engine/api/device_choice.h"

#include <fmt/format.h>

namespace penstock::engine {
namespace {

// Why there is no GPU for this, or nothing where there is.
std::string WhyNot(const ServeOptions& options, const GpuDevice& gpu) {
  if (gpu.gpus == 0) return gpu.why_not;
  if (options.tensor_parallel > gpu.gpus) {
    return fmt::format("--tensor-parallel {} needs as many GPUs, and there are {}",
                       options.tensor_parallel, gpu.gpus);
  }
  if (options.dtype == "float32") return "GPUs compute in bf16, and --dtype is float32";
  return "";
}

}  // namespace

absl::StatusOr<DeviceChoice> ChooseDevice(const ServeOptions& options, const GpuDevice& gpu) {
  if (options.device != "cuda" && options.device != "auto") {
    return DeviceChoice{.name = options.device, .note = fmt::format("device {}", options.device)};
  }
  const std::string why_not = WhyNot(options, gpu);
  if (options.device == "cuda") {
    if (why_not.empty()) {
      return DeviceChoice{.name = "cuda", .note = fmt::format("device cuda ({})", gpu.name)};
    }
    return absl::InvalidArgumentError(
        fmt::format("--device cuda: {}; take --device cpu or auto", why_not));
  }
  if (!why_not.empty()) return CpuAfterAll(why_not);
  return DeviceChoice{.name = "cuda", .note = fmt::format("device cuda (auto: {})", gpu.name),
                      .may_be_cpu = true};
}

DeviceChoice CpuAfterAll(const std::string& reason) {
  return {.name = "cpu", .note = fmt::format("device cpu (auto: {})", reason)};
}

}  // namespace penstock::engine
