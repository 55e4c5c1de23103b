// One tensor-parallel rank on a GPU: its memory, its stream, its part of the
// model, the CUDA graphs of its decode steps. Everything that it needs is
// allocated in Allocate(); a step only queues.
//
// gpu_rank_start.cc has what comes before the first step.
//
// Threads: one, the rank's own (rank 0's steps are the engine thread's). The
// order of calls is that of the class; where ranks must wait for each other
// between two calls, the runner sees to it.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "backend-engine/exec/memory_plan.h"
#include "backend-engine/model/gpu_llama.h"
#include "backend-engine/model/gpu_step.h"
#include "backend-engine/model/gpu_weights.h"
#include "backend-engine/model/rope.h"
#include "backend-engine/parallel/gpu_comm.h"
#include "backend-engine/parallel/last_call.h"
#include "backend-engine/parallel/nccl_comm.h"

namespace penstock::engine {

// What all ranks of a runner share; outlives them. Ranks are counted process by process.
struct GpuGroup {
  ModelConfig config;
  std::vector<int> gpus;         // Of each rank of this process.
  int process = 0;
  int processes = 1;
  int first_rank() const { return process * static_cast<int>(gpus.size()); }
  int ranks() const { return processes * static_cast<int>(gpus.size()); }
  int64_t longest = 0;           // Positions that were asked for; `limits` has fewer where the pool has.
  GpuStepLimits limits;
  std::vector<int32_t> buckets;  // With a graph; empty: no graphs.
  int32_t sm_count = 1;          // Of the smallest GPU: all ranks plan alike.
  bool keep_logits = false;
  std::optional<AllReduceWay> sum_by;  // Empty: whichever is measured to be the fastest.
  RopeTable rope;
};

// Of the NCCL groups that the ranks form; none where there is no NCCL between them.
struct NcclIds {
  std::string all;
  std::vector<std::string> counterparts;  // By rank of a process; none in a process alone.
};

// Memory of a rank beside its weights and KV cache.
int64_t GpuStepBytes(const GpuGroup& group, const Shard& shard, const GpuStepLayout& layout);

// Bytes of one KV block of a rank, keys and values of all layers.
int64_t GpuKvBlockBytes(const ModelConfig& config, const Shard& shard, int32_t block_tokens);

class GpuRank {
 public:
  // `rank`: of this process's.
  GpuRank(const GpuGroup& group, const GpuStepLayout& layout, GpuMeeting& meeting, int rank);
  ~GpuRank();

  // Makes the GPU this thread's. Every other call of another thread needs it first.
  bool Use(std::string& error);

  bool Allocate(const Shard& shard, const MemoryPlan& plan, std::string& error);
  bool Load(const TensorSource& source, const LoadProgress& progress, std::string& error);

  // After every rank of this process has loaded; waits for those of others.
  bool Connect(const NcclIds& ids, std::string& error);

  // Measures products for the sizes of steps and loads what they run, now that no kernel
  // of another rank waits for this one.
  bool Tune(std::string& error);

  // Times the ways of summing over ranks; rank 0 fills the meeting's table.
  bool MeasureSums(std::string& error);

  // Runs a decode step of each bucket, and waits. `idle`: a packed step of the largest
  // bucket, all padding.
  bool RunBuckets(const std::byte* idle, std::string& error);

  // Records those steps' graphs. Nothing runs meanwhile, on any rank.
  bool Record(std::string& error);

  // Queues a step that lies packed at `host`, pinned, after all queued before. On
  // rank 0 its tokens (and with keep_logits its logits) are on the host when it is
  // done. `turn`, 0 or 1: where they go; of two steps under way each has its own.
  bool Queue(const GpuStepShape& shape, int32_t samples, const std::byte* host, size_t turn,
             std::string& error);

  // Has the step queued as `turn` been done? False with an error: the GPU failed.
  bool Done(size_t turn, bool& done, std::string& error);

  // Seconds from its first work on the GPU to its last. REQUIRES: it has been done.
  double BusySeconds(size_t turn) const;

  // Makes NCCL give up, and drops the graphs, for which its abort waits. From any thread;
  // returns at once.
  void Abort();

  // Nothing of this rank runs any more. Of all ranks, before any is destroyed: their
  // kernels read each other's memory.
  void WaitUntilIdle();

  // Rank 0 of all, after Done.
  const cuda::SampledRow* sampled(size_t turn) const { return sampled_host_[turn]; }
  const float* logits() const { return logits_host_; }  // [ranks][rows][vocab_padded]

 private:
  static GpuStepShape BucketShape(int32_t bucket);
  int32_t Splits(int32_t decodes) const;
  cuda::GpuError QueueModel(const GpuStepShape& shape);
  cuda::GpuError QueueOrLaunch(const GpuStepShape& shape);
  bool KeepGraph(int32_t bucket, cuda::Graph graph);
  void DropGraphs();
  cuda::GpuError QueueAwaited(const GpuStepShape& shape);
  cuda::GpuError QueueSampling(const GpuStepShape& shape, int32_t samples, size_t turn);
  bool Ok(cuda::GpuError failed, const char* what, std::string& error) const;
  std::string ReasonOf(cuda::GpuError failed) const;
  bool Join(int rank, int size, const std::string& id, std::unique_ptr<NcclComm>& comm,
            std::atomic<NcclComm*>& library, std::string& error);
  bool OpenGpu(std::string& error);
  bool AllocateForHost(std::string& error);
  bool AllocatePart(int64_t bytes, void** memory, const char* what, std::string& error);

  const GpuGroup& group_;
  const GpuStepLayout& layout_;
  GpuMeeting& meeting_;
  const int rank_;
  Shard shard_;
  cuda::Stream stream_ = nullptr;
  cuda::Event begun_[2] = {};
  cuda::Event done_[2] = {};
  cuda::Event timing_[2] = {};
  std::vector<void*> allocated_;
  std::vector<void*> pinned_;
  std::byte* weight_memory_ = nullptr;
  std::byte* step_memory_ = nullptr;  // The GPU's copy of a packed step.
  GpuWeights weights_;
  GpuBuffers buffers_;
  std::vector<GpuKv> kv_;
  uint32_t* meetings_ = nullptr;
  float* gathered_ = nullptr;  // [ranks][rows][vocab_padded]; of a process's first rank, its own.
  float* work_ = nullptr;
  int32_t* counts_ = nullptr;
  cuda::SampledRow* sampled_ = nullptr;
  cuda::SampledRow* sampled_host_[2] = {};
  float* logits_host_ = nullptr;
  cuda::Gemm gemm_;
  std::unique_ptr<NcclComm> all_, counterparts_;
  std::atomic<NcclComm*> libraries_[2] = {};  // The same, for Abort.
  std::unique_ptr<GpuComm> comm_;
  std::unique_ptr<GpuLlama> model_;
  std::mutex graphs_mutex_;                // Of the two below.
  std::map<int32_t, cuda::Graph> graphs_;  // By bucket.
  bool graphs_dropped_ = false;
  LastCall drop_{[this] { DropGraphs(); }};
};

}  // namespace penstock::engine
