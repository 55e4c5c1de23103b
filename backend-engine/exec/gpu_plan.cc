#include "backend-engine/exec/gpu_plan.h"

#include <algorithm>
#include <set>

#include "backend-engine/exec/decode_plan.h"
#include "backend-engine/exec/thread_place.h"

namespace penstock::engine {
namespace {

bool CheckOptions(const GpuRunnerOptions& options, std::string& error) {
  const auto ranks = static_cast<int64_t>(options.gpus.size());
  const std::set<int> different(options.gpus.begin(), options.gpus.end());
  if (options.meeting && different.size() != options.gpus.size()) {
    error = "several ranks of one GPU; among processes each rank needs a GPU of its own";
    return false;
  }
  const struct {
    const char* name;
    int64_t value;
  } counts[] = {{"ranks", ranks},
                {"block_tokens", options.block_tokens},
                {"max_step_tokens", options.max_step_tokens},
                {"max_sequences", options.max_sequences}};
  for (const auto& count : counts) {
    if (count.value >= 1) continue;
    error = std::string(count.name) + " is " + std::to_string(count.value) + ", at least 1 needed";
    return false;
  }
  if (options.max_sequences > cuda::kDecodesMax) {
    error = "max_sequences is " + std::to_string(options.max_sequences) +
            "; the GPU's kernels take at most " + std::to_string(cuda::kDecodesMax) +
            " in a step; lower --max-running";
    return false;
  }
  if ((options.block_tokens & (options.block_tokens - 1)) != 0) {
    error = "block_tokens is " + std::to_string(options.block_tokens) +
            "; the GPU's kernels take powers of two";
    return false;
  }
  int gpus = 0;
  if (const auto failed = cuda::CountGpus(gpus); failed != cuda::kGpuOk) {
    error = "no GPU can be used: " + cuda::ErrorText(failed);
    return false;
  }
  for (const int gpu : options.gpus) {
    if (gpu >= 0 && gpu < gpus) continue;
    error = "GPU " + std::to_string(gpu) + " is asked for and there are " + std::to_string(gpus);
    return false;
  }
  return true;
}

bool ReadGpus(const std::vector<int>& gpus, std::vector<GpuReading>& readings,
              std::string& error) {
  if (!readings.empty()) return true;
  for (const int gpu : gpus) {
    GpuReading& reading = readings.emplace_back();
    cuda::GpuError failed = cuda::DescribeGpu(gpu, reading.about);
    if (failed == cuda::kGpuOk) failed = cuda::UseGpu(gpu);
    if (failed == cuda::kGpuOk) {
      failed = cuda::MemoryInfo(reading.free_bytes, reading.total_bytes);
    }
    if (failed == cuda::kGpuOk) continue;
    error = "GPU " + std::to_string(gpu) + ": " + cuda::ErrorText(failed);
    return false;
  }
  return true;
}

// A rank's part of its GPU in the books of /metrics.
void AddToBooks(int gpu, const cuda::GpuDescription& about, const MemoryPlan& plan,
                std::vector<GpuInUse>& books) {
  const GpuInUse::Part parts[] = {{"weights", plan.weights}, {"step", plan.step},
                                  {"products", plan.workspace}, {"communication", plan.peers},
                                  {"graphs", plan.graphs}, {"reserve", plan.reserve},
                                  {"kv", plan.kv}, {"unused", plan.unused()}};
  auto found = std::find_if(books.begin(), books.end(),
                            [gpu](const GpuInUse& other) { return other.index == gpu; });
  if (found == books.end()) {
    books.push_back({gpu, about.name, about.bus_id, {std::begin(parts), std::end(parts)}});
    return;
  }
  for (size_t i = 0; i < std::size(parts); ++i) found->memory[i].bytes += parts[i].bytes;
}

// The pool is as large as the GPU with the least room allows.
bool PlanMemoryOfGpus(const GpuRunnerOptions& options, int32_t useful, GpuGroup& group,
                      GpuPlan& plan, std::string& error) {
  const GpuStepLayout widest(group.limits);
  StepLimits& limits = group.limits.step;
  int32_t blocks = limits.block_count;
  if (!ReadGpus(group.gpus, plan.readings, error)) return false;
  for (size_t rank = 0; rank < group.gpus.size(); ++rank) {
    const int gpu = group.gpus[rank];
    const Shard& shard = plan.shards[rank];
    const GpuReading& reading = plan.readings[rank];
    MemoryNeeds needs{.free_bytes = reading.free_bytes, .total_bytes = reading.total_bytes};
    const int32_t sms = reading.about.sm_count;
    group.sm_count = rank == 0 ? sms : std::min(group.sm_count, sms);
    needs.gpu = "GPU " + std::to_string(gpu) + " (" + reading.about.name + ")";
    needs.ranks = static_cast<int32_t>(std::count(group.gpus.begin(), group.gpus.end(), gpu));
    needs.weights = GpuWeightBytes(group.config, shard);
    needs.step = GpuStepBytes(group, shard, widest);
    needs.workspace = cuda::Gemm::kWorkspaceBytes;
    needs.graphs = !group.buckets.empty();
    needs.peers = group.ranks() > 1;
    needs.block_bytes = GpuKvBlockBytes(group.config, shard, options.block_tokens);
    needs.blocks_useful = useful;
    needs.blocks_asked = options.block_count;
    MemoryPlan& memory = plan.memory.emplace_back();
    if (!PlanMemory(needs, memory, error)) return false;
    blocks = std::min(blocks, memory.block_count);
    plan.notes += Text(needs, memory) + "\n";
  }
  limits.block_count = blocks;
  limits.positions = std::min(limits.positions, int64_t{blocks} * options.block_tokens);
  const GpuStepLayout layout(group.limits);
  for (size_t rank = 0; rank < group.gpus.size(); ++rank) {
    MemoryPlan& memory = plan.memory[rank];
    memory.block_count = blocks;
    memory.kv = (int64_t{blocks} + 1) *
                GpuKvBlockBytes(group.config, plan.shards[rank], options.block_tokens);
    memory.step = GpuStepBytes(group, plan.shards[rank], layout);
    AddToBooks(group.gpus[rank], plan.readings[rank].about, memory, plan.info.gpus);
  }
  return true;
}

// The CPUs of each rank's thread, before any thread is put anywhere.
void PlanPlaces(const GpuRunnerOptions& options, GpuPlan& plan) {
  plan.cpus.resize(options.gpus.size());
  if (!options.pin_threads) return;
  // A thread begins where the one that made it stands, so each is put somewhere.
  plan.cpus.assign(options.gpus.size(), CpusOfThisThread());
  for (const GpuInUse& gpu : plan.info.gpus) {
    std::vector<int> cpus;
    int node = -1;
    std::string why_not;
    const std::string name = "GPU " + std::to_string(gpu.index);
    if (!CpusNear(gpu.bus_id, options.sysfs, cpus, node, why_not)) {
      plan.notes += name + ": threads stay where they are: " + why_not + "\n";
      continue;
    }
    plan.notes += name + ": threads stay on " + std::to_string(cpus.size()) +
                  " CPUs of NUMA node " + std::to_string(node) + "\n";
    for (size_t rank = 0; rank < options.gpus.size(); ++rank) {
      if (options.gpus[rank] == gpu.index) plan.cpus[rank] = cpus;
    }
  }
}

}  // namespace

bool PlanGpuRun(const ModelConfig& config, const GpuRunnerOptions& options, GpuGroup& group,
                GpuPlan& plan, std::string& error) {
  if (!CheckOptions(options, error)) return false;
  group.config = config;
  group.gpus = options.gpus;
  group.keep_logits = options.keep_logits;
  group.sum_by = options.sum_by;
  if (options.meeting) {
    group.process = options.meeting->index;
    group.processes = options.meeting->size;
  }
  const int ranks = group.ranks();
  plan.of_all.resize(static_cast<size_t>(ranks));
  for (int rank = 0; rank < ranks; ++rank) {
    if (!MakeGpuShard(config, rank, ranks, plan.of_all[static_cast<size_t>(rank)], error)) {
      return false;
    }
  }
  const auto own = plan.of_all.begin() + group.first_rank();
  plan.shards.assign(own, own + static_cast<std::ptrdiff_t>(group.gpus.size()));
  const int64_t longest = config.PositionsFor(options.max_length);
  group.longest = longest;
  const int64_t each = (longest + options.block_tokens - 1) / options.block_tokens;
  const auto useful = static_cast<int32_t>(
      std::min<int64_t>(each * options.max_sequences, (1 << 30) / options.block_tokens));
  group.limits.step = {.tokens = options.max_step_tokens, .sequences = options.max_sequences,
                       .block_tokens = options.block_tokens,
                       .block_count = options.block_count > 0 ? options.block_count : useful,
                       .vocab = config.vocab_size, .positions = longest};
  group.limits.group = static_cast<int32_t>(plan.shards[0].heads.count /
                                            plan.shards[0].kv_heads.count);
  const int32_t rows = std::min(options.max_sequences, options.max_step_tokens);
  group.limits.rows = options.keep_logits ? options.max_step_tokens : rows;
  if (options.graphs && !options.keep_logits) group.buckets = DecodeBuckets(rows);
  if (!PlanMemoryOfGpus(options, useful, group, plan, error)) return false;
  PlanPlaces(options, plan);
  group.rope = MakeRopeTable(config, group.limits.step.positions);  // What its buffer holds.
  plan.layout = std::make_unique<GpuStepLayout>(group.limits);
  const StepLimits& limits = group.limits.step;
  plan.info.device = "cuda";
  plan.info.tensor_parallel = ranks;
  plan.info.block_tokens = limits.block_tokens;
  plan.info.block_count = limits.block_count;
  plan.info.max_step_tokens = limits.tokens;
  plan.info.max_sequences = limits.sequences;
  plan.info.steps_ahead = options.keep_logits ? 0 : 1;  // There is one place for logits.
  plan.info.vocab_size = static_cast<int32_t>(config.vocab_size);
  return true;
}

}  // namespace penstock::engine
