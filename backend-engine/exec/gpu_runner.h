// A Runner on GPUs: the model cut over N ranks, each a thread with a GPU, its
// part of the weights and of the paged KV memory. The engine thread itself is
// rank 0, which also chooses the tokens, on its GPU.
//
// Several ranks may be put on one GPU: then sharding, sums over ranks and graphs
// run as between GPUs, slower, on one.
//
// Two steps may be under way: the second is packed, copied and queued while the
// first one runs, and takes the tokens that it chooses where they are, on the GPU.
//
// Several processes, each with as many ranks, may be one engine: all plan alike, and
// process 0 sends each step to the others, which Follow() (gpu_line.h). A process that
// is lost fails the others as a rank that fails does.
//
// A rank that fails, and a step that takes longer than step_seconds_max, make the
// group abort: kernels that wait for a peer give up, NCCL is told to and the graphs
// that recorded its calls are dropped, Run() returns kFailed and error() says which
// rank and why. Nobody waits for it, but for Create() and the destructor, who cannot
// leave a GPU's work behind: after end_seconds_max they call `lost`.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "backend-engine/exec/runner.h"
#include "backend-engine/model/model_config.h"
#include "backend-engine/model/tensor_view.h"
#include "backend-engine/parallel/all_reduce_choice.h"
#include "backend-engine/parallel/rendezvous.h"

namespace penstock::engine {

struct GpuRunnerOptions {
  std::vector<int> gpus = {0};   // Of each rank of this process; one GPU several times makes virtual ranks.
  int32_t block_tokens = 16;     // A power of two.
  int32_t block_count = 0;       // Of the KV pool; 0: as many as there is room for.
  int32_t max_step_tokens = 2048;
  int32_t max_sequences = 64;
  int32_t max_length = 0;        // Prompt and answer together; 0: the model's limit.
  bool graphs = true;            // Of decode steps.
  bool keep_logits = false;      // Compute and keep the logits of every token of a step.
  int32_t step_seconds_max = 120;
  int32_t end_seconds_max = 30;  // For all that runs to end, once it has been aborted.
  std::optional<RendezvousOptions> meeting;  // With the other processes; empty: there are none.
  std::optional<AllReduceWay> sum_by;  // Over ranks; empty: whichever is measured to be the fastest.
  bool pin_threads = true;       // Each rank's thread stays on the CPUs near its GPU.
  std::string sysfs = "/sys";    // Where the kernel says which those are.
  std::function<void(int64_t done, int64_t total)> progress;  // As CpuRunnerOptions'.
  std::function<void(const std::string&)> failed;  // Once it ran: the reason, on any thread.
  // The GPUs do not end what they run, with the reason why they should: on a thread of its
  // own, once. Empty: says so on stderr and ends the process, with status 1.
  std::function<void(const std::string&)> lost;
};

class GpuRunner final : public Runner {
 public:
  // As CpuRunner::Create. Out of memory is an error with the arithmetic in it.
  static std::unique_ptr<GpuRunner> Create(const ModelConfig& config, const TensorSource& source,
                                           const GpuRunnerOptions& options, std::string& error);
  ~GpuRunner() override;

  const RunnerInfo& info() const override;
  RunStatus Run(const StepPlan& plan, StepResult& result) override;
  RunStatus Start(const StepPlan& plan) override;
  RunStatus Finish(StepResult& result) override;
  std::string error() const override;
  void Abort() override;
  void OnFailure(std::function<void()> failed) override;
  std::string Follow() override;

  // What was decided at start, for the log: the memory of each GPU, the way of
  // summing over ranks by size, the graphs. Lines.
  const std::string& notes() const;

  // What the ways of summing over ranks were measured to take; empty with one rank.
  const AllReduceTable& sums() const;

  // Of all steps so far, the time between its first and its last work on rank 0's GPU.
  // What a step takes beyond that is ours. The thread of Finish() only.
  double busy_seconds() const;

  // The vocabulary's logits after token `index` of the last step's tokens.
  // REQUIRES: keep_logits, and the last Run() returned kOk.
  std::span<const float> kept_logits(int32_t index) const;

 private:
  class Impl;
  explicit GpuRunner(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace penstock::engine
