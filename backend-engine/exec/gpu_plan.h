// What a GPU runner decides before anything is allocated: options checked, the
// model cut into shards, the limits of a step, and the memory of every GPU.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "backend-engine/exec/gpu_rank.h"
#include "backend-engine/exec/gpu_runner.h"
#include "backend-engine/exec/memory_plan.h"
#include "backend-engine/exec/runner.h"

namespace penstock::engine {

// What a GPU has, and had free before anything was allocated.
struct GpuReading {
  cuda::GpuDescription about;
  int64_t free_bytes = 0;
  int64_t total_bytes = 0;
};

struct GpuPlan {
  std::vector<GpuReading> readings;  // Of each rank's. Asked for where there are none yet.
  std::vector<Shard> shards;       // Of each rank of this process, as `memory`.
  std::vector<Shard> of_all;       // Of each rank of all processes.
  std::vector<MemoryPlan> memory;
  std::vector<std::vector<int>> cpus;  // Its thread's; none: it is not put anywhere.
  std::unique_ptr<GpuStepLayout> layout;
  RunnerInfo info;
  std::string notes;               // For the log: memory and CPUs of each GPU, in lines.
};

// Fills `group` and `plan`, of which only `readings` may hold something before. False:
// `error` says which option or number, and what is allowed; out of memory comes with the
// arithmetic.
bool PlanGpuRun(const ModelConfig& config, const GpuRunnerOptions& options, GpuGroup& group,
                GpuPlan& plan, std::string& error);

}  // namespace penstock::engine
