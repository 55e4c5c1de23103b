// A Runner without arithmetic: tokens from a hash, time from a table. Everything
// above it (scheduler, KV book-keeping, API, load reports) is the real thing, so
// ten honest "GPU" engines run on two cores.
//
// Tokens: a hash of the prompt and the position picks from `plain_tokens`, so the
// same prompt gets the same answer from every emulated engine, whatever else it
// is busy with and whatever the temperature.
// Time: Run() sleeps as long as the table says the step takes.
//
// Threads: as Runner says; Abort() wakes a Run() that sleeps.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "backend-engine/exec/runner.h"

namespace penstock::engine {

// What a step costs on some device. All costs add up; `crowd` multiplies.
struct TimingTable {
  // A line through points; past the last one its slope goes on.
  struct Point {
    double x = 0;
    double y = 0;
  };

  std::string name;
  std::vector<Point> matmul_ms;            // By tokens in the step; empty: 0.
  double fixed_ms = 0;                     // Launches and small kernels.
  double decode_ms_per_context_token = 0;  // Reading the cache, for each token of it.
  double prefill_ms_per_token_pair = 0;    // For each token, for each token before it.
  std::vector<Point> crowd;                // Factor by sequences in the step; empty: 1.
  int32_t kv_tokens = 0;                   // Tokens that such a device's KV cache holds.

  double StepMs(const StepPlan& plan) const;
};

// "h200": Llama 8B in bf16 on one H200, summed from measured kernels: about
//   4.9 ms a step alone at 1k context, 14 ms for 256 sequences, a prompt of
//   1,024 tokens in 20 ms and one of 8,192 in 173 ms.
// "v100": a node whose short request (prompt up to 64 tokens, answer of 16)
//   takes 120 ms alone and 850 ms with more than 8 in flight.
// "instant": no time at all.
// Nothing for other names.
std::optional<TimingTable> FindTimingTable(std::string_view name);

// For help texts and error messages.
inline constexpr std::string_view kTimingTableNames[] = {"h200", "v100", "instant"};

struct EmulatedOptions {
  TimingTable timing;
  double speed = 1;                   // 0.5: every step takes twice as long. More than 0.
  int32_t tensor_parallel = 1;        // Only reported.
  int32_t block_tokens = 16;
  int32_t block_count = 0;            // 0: what the table's kv_tokens need.
  int32_t max_step_tokens = 2048;
  int32_t max_sequences = 256;
  int32_t vocab_size = 0;
  std::vector<int32_t> plain_tokens;  // Tokens to answer with; at least one.
  int32_t stop_token = -1;            // With answer_tokens_max: how an answer ends by itself.
  int32_t answer_tokens_max = 0;      // Answers end after 1 to this many tokens; 0: never.
};

class EmulatedRunner final : public Runner {
 public:
  explicit EmulatedRunner(EmulatedOptions options);

  const RunnerInfo& info() const override { return info_; }
  RunStatus Run(const StepPlan& plan, StepResult& result) override;
  std::string error() const override { return "the emulated device was told to stop"; }
  void Abort() override;

 private:
  using Clock = std::chrono::steady_clock;

  struct Slot {
    SequenceId id = 0;
    uint64_t prompt_hash = 0;
  };

  int32_t ChooseToken(const StepSequence& sequence);
  bool SleepFor(double ms);

  EmulatedOptions options_;
  RunnerInfo info_;
  std::vector<Slot> slots_;
  Clock::time_point last_end_ = {};

  std::mutex mutex_;
  std::condition_variable wake_;
  bool aborted_ = false;
};

}  // namespace penstock::engine
