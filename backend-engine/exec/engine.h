// The engine of one node: takes token-level generation requests, runs the step
// loop (plan, run, commit, publish) on a thread of its own and hands tokens out.
// Text, templates, JSON and HTTP live above it; arithmetic lives below it.
//
// Threads: all calls but the destructor may come from any thread. The sink is
// called on the engine thread, once a step at most, with no lock held; it must
// not block: it posts to whoever is waiting.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "backend-engine/exec/runner.h"
#include "backend-engine/sched/request.h"

namespace penstock::engine {

struct EngineOptions {
  int32_t queue_max = 256;             // Sequences waiting; one more is refused as kQueueFull.
  int64_t queue_tokens_max = 1 << 20;  // Prompt tokens waiting, likewise.
  int32_t max_running = 64;            // Sequences computed side by side (at most the runner's).
  int32_t step_tokens = 512;           // Token budget of one step (at most the runner's).
  int32_t max_length = 0;              // Prompt and answer together, in tokens.
  double stall_seconds = 60;           // A step longer than this makes Load().state kFailed.
};

enum class NodeState : uint8_t { kLoading, kReady, kDraining, kAsleep, kFailed };

// The load of the node, all counts being totals. Published before and after
// every step and on every Submit; read without a lock. A step that runs longer
// than stall_seconds makes `state` kFailed for as long as it runs, without a new
// `seq`: nobody is there to publish.
struct EngineLoad {
  uint64_t seq = 0;                      // Grows with every change.
  NodeState state = NodeState::kLoading;
  int32_t running = 0;
  int32_t waiting = 0;
  int64_t waiting_tokens = 0;            // Known, not yet computed; prompts in progress too.
  int64_t running_tokens = 0;            // In the KV cache.
  int32_t max_running = 0;
  int32_t kv_blocks_used = 0;
  int32_t kv_blocks_total = 0;
  float prefill_tokens_per_s = 0;        // Measured; 0: no data yet.
  float step_ms = 0;                     // Mean of the last steps; 0: no data yet.
  float ttft_ms_p50 = 0;                 // Of the last answers; 0: no data yet.
  uint64_t preemptions = 0;
  uint64_t steps = 0;
  uint64_t prompt_tokens = 0;            // Totals since start.
  uint64_t generated_tokens = 0;
  double seconds_in_step = 0;            // How long the current step has been running.
};

class Engine {
 public:
  using Sink = std::function<void(std::span<TokenEvent>)>;

  // `on_load` is called (any thread, no lock held, must not block) when Load()
  // changed in a way worth telling.
  Engine(std::unique_ptr<Runner> runner, EngineOptions options, Sink sink,
         std::function<void()> on_load = {});
  ~Engine();  // Stops: every live sequence ends with kFailed.

  SubmitResult Submit(GenerateRequest request);
  // All of them, with ids one after the other, or none. REQUIRES: at least one.
  SubmitResult Submit(std::vector<GenerateRequest> group);
  void Cancel(SequenceId id);  // Frees its blocks before the next step. Unknown ids are ignored.
  // The speed measured so far counts for nothing: Load() has no data again. For
  // after a self-test, whose first step is like no client's. What a step in
  // progress measures goes with it.
  void ForgetSpeed();
  void Drain();                // New requests are refused with kDraining, running ones finish.
  bool idle() const;           // Nothing runs and nothing waits.
  EngineLoad Load() const;
  const RunnerInfo& info() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace penstock::engine
