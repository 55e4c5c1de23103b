// The two structs that pass between the scheduler and whoever computes: what
// one step shall compute on every rank, and what came out of it. Plain values;
// the vectors are reserved once for the largest step and reused, so that a
// step allocates nothing.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

namespace penstock::engine {

using SequenceId = uint64_t;

// How one sequence wants its next token chosen.
struct SamplingParams {
  float temperature = 1.0f;  // 0: the most likely token.
  int32_t top_k = 0;         // 0: all.
  float top_p = 1.0f;
  float min_p = 0.0f;
  float repetition_penalty = 1.0f;
  float presence_penalty = 0.0f;
  float frequency_penalty = 0.0f;
  uint64_t seed = 0;
  int32_t logprobs = -1;  // -1: none; n: the chosen token's and the n most likely ones'.
  std::vector<std::pair<int32_t, float>> logit_bias;
  // Token t may be chosen where bit t % 32 of word t / 32 is set; none beyond the
  // words. Null: all may. Where none may, the sequence fails.
  std::shared_ptr<const std::vector<uint32_t>> allowed = nullptr;
};

// One sequence's share of a step: `token_count` tokens starting at position
// `start`, whose keys and values go to the blocks of `block_table`.
struct StepSequence {
  SequenceId id = 0;
  int32_t slot = 0;         // Small and stable while the sequence runs: index of its state.
  int32_t first_token = 0;  // Index into StepPlan::tokens.
  int32_t token_count = 0;
  int32_t start = 0;        // Tokens of this sequence that are already in the cache.
  int32_t first_block = 0;  // Index into StepPlan::block_table.
  int32_t block_count = 0;
  bool sample = false;      // The last token's logits choose the next token.
  // Of a plan that was made while the step before it still runs: the sequence's
  // one token is what that step chooses as number `awaited` of its samples. It is
  // 0 in StepPlan::tokens, and not yet in `history`. -1: everything is known.
  int32_t awaited = -1;
  const SamplingParams* sampling = nullptr;  // Valid until the step has been started,
  std::span<const int32_t> history = {};     // both. Prompt and answer so far, for penalties.
  int32_t prompt_length = 0;                 // history[0 .. prompt_length) is the prompt.
};

struct StepPlan {
  uint64_t number = 0;
  std::vector<int32_t> tokens;
  std::vector<int32_t> block_table;  // Physical block numbers, sequence after sequence.
  std::vector<StepSequence> sequences;

  bool empty() const { return sequences.empty(); }
};

struct TokenLogprob {
  int32_t token = -1;
  float logprob = 0;
};

struct SampledToken {
  SequenceId id = 0;
  int32_t token = -1;
  bool invalid = false;      // There is no token: fail this sequence, no other. The logits
  bool forbidden = false;    // were not finite, or (then both are set) its mask allows none.
  float logprob = 0;         // Natural log of the unmodified softmax; set if asked for.
  std::vector<TokenLogprob> top;  // Most likely first; as many as asked for.
};

struct StepResult {
  uint64_t number = 0;
  std::vector<SampledToken> sampled;  // One for each StepSequence with `sample`, in plan order.
};

}  // namespace penstock::engine
