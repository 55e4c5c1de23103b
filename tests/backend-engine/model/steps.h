// plain_steps.h for tests: a step that fails is a failure.
#pragma once

#include <gtest/gtest.h>

#include <utility>
#include <vector>

#include "backend-engine/exec/cpu_runner.h"
#include "tests/backend-engine/model/plain_steps.h"

namespace penstock::engine {

class Steps {
 public:
  explicit Steps(Runner& runner, int32_t blocks_each = 32)
      : runner_(runner), steps_(runner, blocks_each) {}

  void Add(int32_t id, const std::vector<int32_t>& tokens, int32_t start, bool sample,
           const SamplingParams* sampling = nullptr) {
    steps_.Add(id, tokens, start, sample, sampling);
  }

  const StepResult& Run() {
    const StepResult& result = steps_.Run();
    EXPECT_FALSE(steps_.failed()) << runner_.error();
    return result;
  }

  std::vector<std::vector<int32_t>> Greedy(const std::vector<std::vector<int32_t>>& prompts,
                                           int32_t tokens_max, int32_t stop) {
    auto answers = steps_.Greedy(prompts, tokens_max, stop);
    EXPECT_FALSE(steps_.failed()) << runner_.error();
    return answers;
  }

 private:
  Runner& runner_;
  PlainSteps steps_;
};

}  // namespace penstock::engine
