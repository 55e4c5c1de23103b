// Drives a Runner without a scheduler: each sequence has a fixed run of blocks,
// and a test says which tokens of which sequence a step holds. Needs no test
// library (steps.h puts one around it): what fails is remembered.
#pragma once

#include <cstdio>
#include <vector>

#include "backend-engine/exec/runner.h"

namespace penstock::engine {

class PlainSteps {
 public:
  explicit PlainSteps(Runner& runner, int32_t blocks_each = 32)
      : runner_(runner), blocks_each_(blocks_each) {}

  bool failed() const { return failed_; }

  // Adds tokens of sequence `id` (below the pool's capacity) to the next step.
  void Add(int32_t id, const std::vector<int32_t>& tokens, int32_t start, bool sample,
           const SamplingParams* sampling = nullptr) {
    StepSequence sequence{.id = static_cast<SequenceId>(id), .slot = id,
                          .first_token = static_cast<int32_t>(plan_.tokens.size()),
                          .token_count = static_cast<int32_t>(tokens.size()), .start = start,
                          .first_block = static_cast<int32_t>(plan_.block_table.size()),
                          .sample = sample, .sampling = sampling};
    sequence.block_count = (start + sequence.token_count + runner_.info().block_tokens - 1) /
                           runner_.info().block_tokens;
    plan_.tokens.insert(plan_.tokens.end(), tokens.begin(), tokens.end());
    for (int32_t block = 0; block < sequence.block_count; ++block) {
      // Falling and far apart, so that order and neighbourhood cannot help.
      plan_.block_table.push_back((id + 1) * blocks_each_ - 1 - block);
    }
    plan_.sequences.push_back(sequence);
  }

  const StepResult& Run() {
    plan_.number++;
    if (!failed_ && (runner_.Run(plan_, result_) != RunStatus::kOk ||
                     result_.number != plan_.number)) {
      std::fprintf(stderr, "a step failed: %s\n", runner_.error().c_str());
      failed_ = true;
    }
    if (failed_) result_.sampled.assign(plan_.sequences.size(), SampledToken());
    plan_.tokens.clear();
    plan_.block_table.clear();
    plan_.sequences.clear();
    return result_;
  }

  // Greedy answers to several prompts, all in one batch.
  std::vector<std::vector<int32_t>> Greedy(const std::vector<std::vector<int32_t>>& prompts,
                                           int32_t tokens_max, int32_t stop) {
    std::vector<std::vector<int32_t>> answers(prompts.size());
    std::vector<size_t> live;
    for (size_t i = 0; i < prompts.size(); ++i) live.push_back(i);
    while (!live.empty() && !failed_) {
      for (const size_t i : live) {
        const auto& answer = answers[i];
        const auto known = static_cast<int32_t>(prompts[i].size() + answer.size());
        answer.empty() ? Add(static_cast<int32_t>(i), prompts[i], 0, true)
                       : Add(static_cast<int32_t>(i), {answer.back()}, known - 1, true);
      }
      const StepResult& result = Run();
      std::vector<size_t> still;
      for (size_t n = 0; n < live.size(); ++n) {
        auto& answer = answers[live[n]];
        answer.push_back(result.sampled.at(n).token);
        if (answer.back() != stop && static_cast<int32_t>(answer.size()) < tokens_max) {
          still.push_back(live[n]);
        }
      }
      live = still;
    }
    return answers;
  }

 private:
  Runner& runner_;
  const int32_t blocks_each_;
  StepPlan plan_;
  StepResult result_;
  bool failed_ = false;
};

}  // namespace penstock::engine
