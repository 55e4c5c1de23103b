// One generation: its tokens, how they are chosen, where its keys and values
// lie, and how far it is computed. Owned by the scheduler; plain data.
//
// There are no phases. A sequence knows `tokens` and has computed the first
// `computed` of them; every step hands out tokens so that it catches up, and
// when it has, the logits of its last token choose the next one. A prompt, a
// recomputed answer and a single new token are the same thing.
#pragma once

#include <cstdint>
#include <vector>

#include "backend-engine/sched/step.h"

namespace penstock::engine {

struct Sequence {
  SequenceId id = 0;
  uint64_t arrival = 0;     // Order of arrival, kept over preemptions.
  double arrived_at = 0;    // Told time, seconds.
  bool running = false;     // In the running list; else it waits.
  bool ran_before = false;  // Has left the queue once: a preempted one waits again.
  int32_t slot = -1;        // While running.
  int32_t preemptions = 0;

  std::vector<int32_t> tokens;  // Prompt, then answer; capacity for all of both.
  int32_t prompt_length = 0;
  int32_t length_max = 0;  // Prompt and longest allowed answer.
  int32_t computed = 0;    // Tokens whose keys and values are in the cache.
  int32_t planned = 0;     // Tokens after those that steps not yet committed compute.
  uint64_t sampled_by = 0;  // The last step planned that chooses a token for it,
  int32_t sample_index = 0; // and as which of its samples.
  std::vector<int32_t> stop_tokens;
  SamplingParams sampling;
  int32_t min_tokens = 0;         // Of the answer: so many are chosen by
  SamplingParams early_sampling;  // these parameters.

  std::vector<int32_t> blocks;  // Enough for all known tokens while running; else empty.

  int32_t known() const { return static_cast<int32_t>(tokens.size()); }
  int32_t generated() const { return known() - prompt_length; }

  // Tokens to catch up with before the next one is chosen, not counting the
  // one that every generating sequence computes in every step.
  int32_t backlog() const {
    const int32_t behind = known() - computed;
    return generated() > 0 ? behind - 1 : behind;
  }
};

}  // namespace penstock::engine
