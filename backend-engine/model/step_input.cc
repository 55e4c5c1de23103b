#include "backend-engine/model/step_input.h"

#include <algorithm>

namespace penstock::engine {
namespace {

bool Refuse(const StepPlan& plan, const StepSequence& sequence, const char* what, int64_t found,
            int64_t limit, std::string& error) {
  error = "step " + std::to_string(plan.number) + ", sequence " + std::to_string(sequence.id) +
          ": " + what + " is " + std::to_string(found) + ", limit " + std::to_string(limit);
  return false;
}

bool CheckSequence(const StepPlan& plan, const StepSequence& sequence, const StepLimits& limits,
                   std::string& error) {
  const int64_t end = int64_t{sequence.start} + sequence.token_count;
  const int64_t blocks = (end + limits.block_tokens - 1) / limits.block_tokens;
  const int64_t token_end = int64_t{sequence.first_token} + sequence.token_count;
  const int64_t block_end = int64_t{sequence.first_block} + sequence.block_count;
  const auto token_count = static_cast<int64_t>(plan.tokens.size());
  const auto table_size = static_cast<int64_t>(plan.block_table.size());
  if (sequence.token_count < 1 || sequence.first_token < 0 || token_end > token_count) {
    return Refuse(plan, sequence, "end of its tokens", token_end, token_count, error);
  }
  if (sequence.start < 0 || end > limits.positions) {
    return Refuse(plan, sequence, "length", end, limits.positions, error);
  }
  if (sequence.first_block < 0 || block_end > table_size || blocks > sequence.block_count) {
    return Refuse(plan, sequence, "number of blocks needed", blocks, sequence.block_count, error);
  }
  if (sequence.awaited >= limits.sequences || (sequence.awaited >= 0 && sequence.token_count != 1)) {
    return Refuse(plan, sequence, "an awaited sample", sequence.awaited, limits.sequences - 1, error);
  }
  for (int64_t i = 0; i < blocks; ++i) {
    const int32_t block = plan.block_table[static_cast<size_t>(sequence.first_block + i)];
    if (block < 0 || block >= limits.block_count) {
      return Refuse(plan, sequence, "a block", block, limits.block_count - 1, error);
    }
  }
  return true;
}

}  // namespace

void StepInput::Reserve(const StepLimits& limits) {
  const auto token_count = static_cast<size_t>(limits.tokens);
  tokens.reserve(token_count);
  positions.reserve(token_count);
  slots.reserve(token_count);
  logit_rows.reserve(token_count);
  awaited.reserve(static_cast<size_t>(limits.sequences));
  sequences.reserve(static_cast<size_t>(limits.sequences));
  block_table.reserve(static_cast<size_t>(limits.block_count));
}

bool FillStepInput(const StepPlan& plan, const StepLimits& limits, bool all_logits,
                   StepInput& input, std::string& error) {
  if (plan.tokens.size() > static_cast<size_t>(limits.tokens) ||
      plan.sequences.size() > static_cast<size_t>(limits.sequences)) {
    error = "step " + std::to_string(plan.number) + " has " + std::to_string(plan.tokens.size()) +
            " tokens of " + std::to_string(plan.sequences.size()) + " sequences, limits " +
            std::to_string(limits.tokens) + " and " + std::to_string(limits.sequences);
    return false;
  }
  input.tokens = plan.tokens;
  input.block_table = plan.block_table;
  input.positions.assign(plan.tokens.size(), 0);
  input.slots.assign(plan.tokens.size(), 0);
  input.sequences.clear();
  input.logit_rows.clear();
  input.awaited.clear();
  for (const StepSequence& sequence : plan.sequences) {
    if (!CheckSequence(plan, sequence, limits, error)) return false;
    const int32_t* blocks = input.block_table.data() + sequence.first_block;
    for (int32_t i = 0; i < sequence.token_count; ++i) {
      const auto token = static_cast<size_t>(sequence.first_token + i);
      const int32_t position = sequence.start + i;
      if (input.tokens[token] < 0 || input.tokens[token] >= limits.vocab) {
        return Refuse(plan, sequence, "a token", input.tokens[token], limits.vocab - 1, error);
      }
      input.positions[token] = position;
      input.slots[token] = int64_t{blocks[position / limits.block_tokens]} * limits.block_tokens +
                           position % limits.block_tokens;
      if (all_logits || (sequence.sample && i + 1 == sequence.token_count)) {
        input.logit_rows.push_back(static_cast<int32_t>(token));
      }
    }
    if (sequence.awaited >= 0) input.awaited.push_back({sequence.first_token, sequence.awaited});
    input.sequences.push_back({sequence.first_token, sequence.token_count, sequence.start, blocks});
  }
  return true;
}

}  // namespace penstock::engine
