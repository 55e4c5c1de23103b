// A Runner computes StepPlans: with CPU ranks, with a timing model in place of
// arithmetic, or on GPUs. It owns the weights and the paged KV memory and knows
// nothing of requests, queues or HTTP.
//
// Threads: Run(), Start(), Finish() and error() are called by the engine thread
// only, info(), Abort() and OnFailure() by any; a Runner may have rank threads of its own behind them.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "backend-engine/sched/step.h"

namespace penstock::engine {

// A GPU in use, and what its memory was planned for.
struct GpuInUse {
  struct Part {
    const char* name;  // weights, step, kv, ...: for labels.
    int64_t bytes;
  };
  int index = 0;             // As CUDA counts them.
  std::string name;          // "NVIDIA H200"
  std::string bus_id;        // Of PCI; empty: not known.
  std::vector<Part> memory;  // Of all ranks there; the last one is what nobody uses.
};

struct RunnerInfo {
  std::string device;          // "cpu", "emulated h200", "cuda": for /health and logs.
  int32_t tensor_parallel = 1;
  int32_t block_tokens = 16;   // Tokens of one KV block.
  int32_t block_count = 0;     // Blocks of the pool, fixed from the start.
  int32_t max_step_tokens = 0; // Most tokens one StepPlan may hold.
  int32_t max_sequences = 0;   // Most sequences one StepPlan may hold; slots are below it.
  int32_t vocab_size = 0;
  int32_t steps_ahead = 0;     // 1: takes a step while the one before still runs.
  std::vector<GpuInUse> gpus;  // Each once; none where nothing runs on a GPU.
};

enum class RunStatus { kOk, kFailed };  // kFailed: a rank died; the engine is lost.

class Runner {
 public:
  virtual ~Runner() = default;
  virtual const RunnerInfo& info() const = 0;  // Never changes.

  // Computes `plan` on every rank and fills `result`. Blocks until done.
  // On kFailed, error() says why, and no further call is made.
  virtual RunStatus Run(const StepPlan& plan, StepResult& result) = 0;
  virtual std::string error() const = 0;

  // The same in two calls, where steps_ahead says so: Start() returns at once, and
  // may be called once more before Finish(), which waits for the oldest step. Steps
  // are computed one after another, each with the cache that the last one left.
  // Only Start() looks at what a plan points to. REQUIRES: steps_ahead > 0.
  virtual RunStatus Start(const StepPlan&) { return RunStatus::kFailed; }
  virtual RunStatus Finish(StepResult&) { return RunStatus::kFailed; }

  // Makes a Run(), Finish() or Follow() that waits (for a peer rank, for a timer) return
  // soon, as failed. Safe from any thread, any number of times.
  virtual void Abort() = 0;

  // `failed` is called where the runner fails, though no step may be under way, on any
  // thread; error() says why. Empty: nobody wants to know any more.
  virtual void OnFailure(std::function<void()>) {}

  // Of several processes that are one engine, those that are not the first: computes what
  // that one plans, until it ends or something fails, and says why. In place of all else.
  virtual std::string Follow() { return "this runner follows nobody"; }
};

}  // namespace penstock::engine
