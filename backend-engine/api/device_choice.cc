#include "backend-engine/api/device_choice.h"

#include <fmt/format.h>

namespace penstock::engine {
namespace {

// Why there is no GPU for this, or nothing where there is.
std::string WhyNot(const ServeOptions& options, const GpuDevice& gpu) {
  if (gpu.gpus == 0) return gpu.why_not;
  if (options.ranks_here() > gpu.gpus) {
    const std::string each =
        options.nnodes > 1 ? fmt::format(" of --nnodes {}", options.nnodes) : std::string();
    return fmt::format("--tensor-parallel {}{} needs {} GPUs, and there are {}",
                       options.tensor_parallel, each,
                       options.nnodes > 1 ? fmt::format("{}", options.ranks_here()) : "as many",
                       gpu.gpus);
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
        options.nnodes > 1
            ? fmt::format("--device cuda: {}", why_not)
            : fmt::format("--device cuda: {}; take --device cpu or auto", why_not));
  }
  if (options.nnodes > 1 && !why_not.empty()) {
    return absl::InvalidArgumentError(fmt::format("--nnodes {}: {}", options.nnodes, why_not));
  }
  if (!why_not.empty()) return CpuAfterAll(why_not);
  return DeviceChoice{.name = "cuda", .note = fmt::format("device cuda (auto: {})", gpu.name),
                      .may_be_cpu = options.nnodes == 1};
}

DeviceChoice CpuAfterAll(const std::string& reason) {
  return {.name = "cpu", .note = fmt::format("device cpu (auto: {})", reason)};
}

}  // namespace penstock::engine
