// How a GPU rank comes to be: its memory, weights and peers, what is measured, and the
// graphs. All of it before the first step; gpu_rank.cc has the steps.
#include <algorithm>

#include "backend-engine/exec/decode_plan.h"
#include "backend-engine/exec/gpu_rank.h"
#include "backend-engine/kernels/cuda/load_kernels.h"
#include "backend-engine/sched/check.h"

namespace penstock::engine {
namespace {

constexpr int64_t kAlign = 256;
constexpr int kRunsMeasured = 8;
constexpr int32_t kTokensMeasured = 512;  // Beyond, cuBLASLt's first guess is a good one.

static_assert(kSplitsMax <= cuda::kAttentionSplitsMax);

int64_t Aligned(int64_t bytes) { return (bytes + kAlign - 1) / kAlign * kAlign; }

GpuBufferSizes SizesOf(const GpuGroup& group, const Shard& shard) {
  const StepLimits& limits = group.limits.step;
  return {.tokens = std::max(limits.tokens, limits.sequences),
          .rows = std::max(group.limits.rows, limits.sequences),
          .partials = PartialsMax(limits.sequences, static_cast<int32_t>(shard.kv_heads.count),
                                  group.sm_count, limits.positions),
          .positions = limits.positions};
}

// What chooses tokens, on rank 0 of all, and what the first rank of a process passes on.
struct SamplingBytes {
  int64_t gathered, work, counts, sampled;
  int64_t sum() const { return gathered + work + counts + sampled; }
};
SamplingBytes SamplingBytesOf(const GpuGroup& group, const Shard& shard) {
  const int64_t rows = std::max(group.limits.rows, group.limits.step.sequences);
  const int64_t sequences = group.limits.step.sequences;
  if (shard.rank != group.first_rank()) return {};
  const bool chooses = shard.rank == 0;
  const int64_t ranks = chooses ? group.ranks() : static_cast<int64_t>(group.gpus.size());
  const int64_t words = chooses ? Aligned(sequences * group.config.vocab_size * 4) : 0;
  return {.gathered = ranks > 1 ? Aligned(ranks * rows * shard.vocab_padded * 4) : 0,
          .work = words,
          .counts = words,
          .sampled = Aligned(sequences * static_cast<int64_t>(sizeof(cuda::SampledRow)))};
}

constexpr int64_t kWordsBytes = int64_t{cuda::kPeerBlocksMax} * cuda::kPeersMax * 4;
constexpr int64_t kMeetingsBytes = int64_t{cuda::kPeerBlocksMax} * 4;

}  // namespace

int64_t GpuStepBytes(const GpuGroup& group, const Shard& shard, const GpuStepLayout& layout) {
  GpuBuffers none;
  return PlaceGpuBuffers(group.config, shard, SizesOf(group, shard), nullptr, none) +
         Aligned(layout.bytes()) + SamplingBytesOf(group, shard).sum() + Aligned(kWordsBytes) +
         Aligned(kMeetingsBytes);
}

int64_t GpuKvBlockBytes(const ModelConfig& config, const Shard& shard, int32_t block_tokens) {
  return shard.kv_heads.count * block_tokens * config.head_dim * 2 * 2 * config.layer_count;
}

bool GpuRank::AllocatePart(int64_t bytes, void** memory, const char* what, std::string& error) {
  *memory = nullptr;
  if (!Ok(cuda::Allocate(std::max<int64_t>(bytes, 1), memory), what, error)) {
    error += " (" + std::to_string(bytes) + " bytes asked for)";
    return false;
  }
  allocated_.push_back(*memory);
  return true;
}

// Reaches the other ranks' GPUs, and makes what work is queued with.
bool GpuRank::OpenGpu(std::string& error) {
  const int own = group_.gpus[static_cast<size_t>(rank_)];
  for (const int peer : group_.gpus) {
    bool possible = false;
    if (!Ok(cuda::EnablePeer(own, peer, possible), "reaching another GPU", error)) return false;
    if (possible) continue;
    error = "GPU " + std::to_string(own) + " cannot read the memory of GPU " +
            std::to_string(peer) + "; tensor parallel needs GPUs that can (NVLink, or PCIe peers)";
    return false;
  }
  for (auto* const events : {&begun_, &done_, &timing_}) {
    for (cuda::Event& event : *events) {
      if (!Ok(cuda::MakeEvent(event), "an event", error)) return false;
    }
  }
  if (!Ok(cuda::MakeStream(stream_), "a stream", error) ||
      !Ok(cuda::LoadEveryKernel(), "loading the kernels", error)) {
    return false;
  }
  if (std::string reason; !gemm_.Start(reason)) {
    error = "rank " + std::to_string(group_.first_rank() + rank_) + ": " + reason;
    return false;
  }
  return true;
}

bool GpuRank::Allocate(const Shard& shard, const MemoryPlan& plan, std::string& error) {
  shard_ = shard;
  if (!OpenGpu(error)) return false;
  void *weights = nullptr, *step = nullptr, *kv = nullptr;
  if (!AllocatePart(plan.weights, &weights, "memory for weights", error) ||
      !AllocatePart(plan.step, &step, "memory for a step", error) ||
      !AllocatePart(plan.kv, &kv, "memory for the KV cache", error)) {
    return false;
  }
  weight_memory_ = static_cast<std::byte*>(weights);
  auto* next = static_cast<std::byte*>(step);
  next += PlaceGpuBuffers(group_.config, shard_, SizesOf(group_, shard_), next, buffers_);
  const auto take = [&next](auto*& pointer, int64_t bytes) {
    pointer = bytes > 0 ? reinterpret_cast<std::remove_reference_t<decltype(pointer)>>(next)
                        : nullptr;
    next += bytes;
  };
  const SamplingBytes sampling = SamplingBytesOf(group_, shard_);
  cuda::PeerMemory memory{{buffers_.branch[0], buffers_.branch[1]}, buffers_.logits, nullptr,
                          nullptr};
  take(step_memory_, Aligned(layout_.bytes()));
  take(gathered_, sampling.gathered);
  take(work_, sampling.work);
  take(counts_, sampling.counts);
  take(sampled_, sampling.sampled);
  memory.sampled = sampled_;
  take(memory.words, Aligned(kWordsBytes));
  take(meetings_, Aligned(kMeetingsBytes));
  const int64_t layer_bytes = int64_t{plan.block_count + 1} *
                              GpuKvBlockBytes(group_.config, shard_, group_.limits.step.block_tokens) /
                              (2 * group_.config.layer_count);
  for (int64_t layer = 0; layer < group_.config.layer_count; ++layer) {
    auto* keys = static_cast<std::byte*>(kv) + 2 * layer * layer_bytes;
    kv_.push_back({reinterpret_cast<cuda::Bf16*>(keys),
                   reinterpret_cast<cuda::Bf16*>(keys + layer_bytes)});
  }
  if (!Ok(cuda::FillBytes(memory.words, 0, kWordsBytes, stream_), "clearing", error) ||
      !Ok(cuda::FillBytes(meetings_, 0, kMeetingsBytes, stream_), "clearing", error) ||
      (counts_ != nullptr &&
       !Ok(cuda::FillBytes(counts_, 0, sampling.counts, stream_), "clearing", error))) {
    return false;
  }
  meeting_.Announce(rank_, memory);
  return shard_.rank != 0 || AllocateForHost(error);
}

// Where rank 0's answers come to.
bool GpuRank::AllocateForHost(std::string& error) {
  void* host = nullptr;
  const int64_t sampled = SamplingBytesOf(group_, shard_).sampled;
  for (cuda::SampledRow*& to : sampled_host_) {
    if (!Ok(cuda::AllocatePinned(sampled, &host), "pinned memory", error)) return false;
    pinned_.push_back(host);
    to = static_cast<cuda::SampledRow*>(host);
  }
  if (!group_.keep_logits) return true;
  const int64_t logits = int64_t{group_.ranks()} * group_.limits.rows *
                         shard_.vocab_padded * 4;
  if (!Ok(cuda::AllocatePinned(logits, &host), "pinned memory", error)) return false;
  pinned_.push_back(host);
  logits_host_ = static_cast<float*>(host);
  return true;
}

bool GpuRank::Load(const TensorSource& source, const LoadProgress& progress,
                   std::string& error) {
  const auto bytes = [](const std::vector<float>& values) {
    return static_cast<int64_t>(values.size() * sizeof(float));
  };
  const RopeTable& rope = group_.rope;
  const int64_t places = group_.limits.step.positions * group_.config.head_dim / 2;
  ENGINE_CHECK(static_cast<int64_t>(rope.cosines.size()) == places &&
                   static_cast<int64_t>(rope.sines.size()) == places,
               "a rotary table of %zu numbers for %lld places", rope.cosines.size(),
               static_cast<long long>(places));
  return LoadGpuWeights(group_.config, shard_, source, weight_memory_, stream_, progress,
                        weights_, error) &&
         Ok(cuda::CopyToGpu(buffers_.cosines, rope.cosines.data(), bytes(rope.cosines), stream_),
            "copying the rotary table", error) &&
         Ok(cuda::CopyToGpu(buffers_.sines, rope.sines.data(), bytes(rope.sines), stream_),
            "copying the rotary table", error) &&
         Ok(cuda::Synchronize(stream_), "loading", error);
}

// `library` points to it as soon as there is one, and to the end: who aborts may have looked.
bool GpuRank::Join(int rank, int size, const std::string& id, std::unique_ptr<NcclComm>& comm,
                   std::atomic<NcclComm*>& library, std::string& error) {
  comm = NcclComm::Create(rank, size, id, stream_, meeting_.aborted(), error);
  if (comm == nullptr) return false;
  library.store(comm.get());
  // Whoever aborts does so in the other order: one of the two sees it.
  if (meeting_.aborted()) comm->Abort();
  if (comm->Connect(buffers_.logits)) {
    if (!Ok(cuda::Synchronize(stream_), "connecting the ranks", error)) return false;
    if (comm->Healthy(error)) return true;
  } else {
    (void)comm->Healthy(error);
  }
  error = "rank " + std::to_string(group_.first_rank() + rank_) + ": " + error;
  return false;
}

bool GpuRank::Connect(const NcclIds& ids, std::string& error) {
  GpuLibrary library{.processes = group_.processes};
  if (!ids.all.empty()) {
    if (!Join(shard_.rank, group_.ranks(), ids.all, all_, libraries_[0], error)) return false;
    library.all = library.counterparts = all_.get();
  }
  // Processes of one rank each are their own counterparts.
  if (group_.processes > 1 && group_.gpus.size() > 1) {
    if (!Join(group_.process, group_.processes, ids.counterparts[static_cast<size_t>(rank_)],
              counterparts_, libraries_[1], error)) {
      return false;
    }
    library.counterparts = counterparts_.get();
  }
  int sharing = 1;
  for (const int gpu : group_.gpus) {
    sharing = std::max(sharing, static_cast<int>(std::count(group_.gpus.begin(),
                                                            group_.gpus.end(), gpu)));
  }
  comm_ = std::make_unique<GpuComm>(meeting_, rank_, meetings_, library,
                                    cuda::PeerBlocks(group_.sm_count, sharing));
  model_ = std::make_unique<GpuLlama>(group_.config, shard_, weights_, kv_, buffers_,
                                      group_.limits.step.block_tokens, gemm_, *comm_);
  return true;
}

// Each way over the sizes of some batches; what the sums are of does not matter.
bool GpuRank::MeasureSums(std::string& error) {
  const auto hidden = static_cast<int32_t>(group_.config.hidden_size);
  std::vector<AllReduceWay> ways = comm_->Ways();
  if (group_.sum_by) std::erase_if(ways, [this](AllReduceWay way) { return way != *group_.sum_by; });
  if (ways.empty()) {
    error = std::string("these ranks have no sum called ") + NameOf(*group_.sum_by);
    return false;
  }
  for (int32_t tokens = 1; tokens <= group_.limits.step.tokens; tokens *= 4) {
    for (const AllReduceWay way : ways) {
      const auto run = [&](int turn) {
        const int buffer = turn % 2;
        return comm_->SumAndNormBy(
            way, buffer,
            {buffers_.branch[buffer], buffers_.residual, true, weights_.final_norm, tokens,
             hidden, 1e-6f, buffers_.normed},
            stream_);
      };
      constexpr int kRunsBefore = 2;  // Which load the kernel.
      for (int turn = 0; turn < kRunsBefore + kRunsMeasured; ++turn) {
        if (turn == kRunsBefore && !Ok(cuda::Record(timing_[0], stream_), "timing", error)) return false;
        if (!Ok(run(turn), "a sum over the ranks", error)) return false;
      }
      float ms = 0;
      if (!Ok(cuda::Record(timing_[1], stream_), "timing", error) ||
          !Ok(cuda::Synchronize(stream_), "a sum over the ranks", error) ||
          !Ok(cuda::Milliseconds(timing_[0], timing_[1], ms), "timing", error)) {
        return false;
      }
      if (shard_.rank == 0) {
        meeting_.table.Add(int64_t{tokens} * hidden * 2, way, ms * 1000.0 / kRunsMeasured);
      }
    }
  }
  return true;
}

bool GpuRank::Tune(std::string& error) {
  const GpuBufferSizes sizes = SizesOf(group_, shard_);
  std::string reason;
  const auto tune = [&](int64_t most, auto tune_size) {
    for (int32_t size = cuda::GemmTokens(1); size <= cuda::GemmTokens(static_cast<int32_t>(most));
         size = cuda::GemmTokens(size + 1)) {
      if (!tune_size(size, size <= kTokensMeasured ? cuda::Gemm::kGuessesMax : 1)) return false;
    }
    return true;
  };
  if (tune(sizes.tokens, [&](int32_t tokens, int guesses) {
        return model_->TuneLayers(tokens, guesses, stream_, reason);
      }) &&
      tune(sizes.rows, [&](int32_t rows, int guesses) {
        return model_->TuneLogits(rows, guesses, stream_, reason);
      })) {
    return true;
  }
  error = "rank " + std::to_string(group_.first_rank() + rank_) + ": " + reason;
  return false;
}

GpuStepShape GpuRank::BucketShape(int32_t bucket) {
  return {.tokens = bucket, .rows = bucket, .sequences = bucket, .decodes = bucket,
          .bucket = bucket, .table_entries = 1};
}

bool GpuRank::RunBuckets(const std::byte* idle, std::string& error) {
  if (group_.buckets.empty()) return true;
  if (!Ok(layout_.Copy(BucketShape(group_.buckets.back()), idle, step_memory_, stream_),
          "a step's input", error)) {
    return false;
  }
  for (const int32_t bucket : group_.buckets) {
    if (!Ok(QueueModel(BucketShape(bucket)), "a decode step", error) ||
        !Ok(comm_->GatherLogits(int64_t{bucket} * shard_.vocab_padded, gathered_, stream_),
            "gathering logits", error)) {
      return false;
    }
  }
  return Ok(cuda::Synchronize(stream_), "a decode step", error);
}

bool GpuRank::Record(std::string& error) {
  for (const int32_t bucket : group_.buckets) {
    if (!Ok(cuda::BeginCapture(stream_), "recording a graph", error)) return false;
    const cuda::GpuError queued = QueueModel(BucketShape(bucket));
    cuda::Graph graph = nullptr;
    const cuda::GpuError recorded = cuda::EndCapture(stream_, graph);
    const bool kept = graph == nullptr || KeepGraph(bucket, graph);
    if (!Ok(queued, "recording a graph", error) || !Ok(recorded, "recording a graph", error) ||
        !kept) {
      return false;
    }
  }
  return Ok(cuda::Synchronize(stream_), "recording a graph", error);
}

}  // namespace penstock::engine
