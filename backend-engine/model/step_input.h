// A StepPlan in the form that the arithmetic wants it: positions, places in the
// cache and the rows whose logits are asked for. Made once a step, read by all
// ranks. Vectors are reserved for the largest step.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "backend-engine/kernels/kernels.h"
#include "backend-engine/sched/step.h"

namespace penstock::engine {

// What a plan must stay within.
struct StepLimits {
  int32_t tokens = 0;
  int32_t sequences = 0;
  int32_t block_tokens = 0;
  int32_t block_count = 0;
  int64_t vocab = 0;
  int64_t positions = 0;
};

// Token `token` of a step is what the step before it chose as its sample `sample`.
struct AwaitedToken {
  int32_t token, sample;
};

struct StepInput {
  std::vector<int32_t> tokens;
  std::vector<int32_t> positions;
  std::vector<int64_t> slots;  // Where a token's key and value go.
  std::vector<int32_t> block_table;
  std::vector<AttentionSequence> sequences;
  std::vector<int32_t> logit_rows;  // Tokens whose logits are wanted, in plan order.
  std::vector<AwaitedToken> awaited;

  void Reserve(const StepLimits& limits);
};

// Returns false and names the first number of the plan that is out of bounds.
// With `all_logits` every token's logits are wanted.
bool FillStepInput(const StepPlan& plan, const StepLimits& limits, bool all_logits,
                   StepInput& input, std::string& error);

}  // namespace penstock::engine
