// Chooses a sequence's next token from its logits.
//
// In this order: logit_bias; repetition penalty over prompt and answer;
// presence and frequency penalties over the answer; the mask of allowed tokens;
// temperature; min_p; top_k; top_p; one draw. Temperature 0 takes the most likely
// token after bias, penalties and mask. Log probabilities are of the model's own distribution, before all
// of that.
//
// The draw is the request's seed's number for this place in the answer, so that
// neither the rest of the batch nor a preemption changes it.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "backend-engine/kernels/kernels.h"
#include "backend-engine/sched/step.h"

namespace penstock::engine {

class Sampler {
 public:
  Sampler(int64_t vocab, const Kernels& kernels);

  // `logits`: vocab numbers. `history`: prompt and answer so far;
  // `prompt_length` of it is the prompt. Fills all but out.id; out.invalid if a
  // logit is not finite. Allocates only where out.top must grow.
  void Sample(const float* logits, const SamplingParams& params, std::span<const int32_t> history,
              int64_t prompt_length, SampledToken& out);

 private:
  void SetLogprobs(const float* logits, const ArgMaxResult& best, int32_t top_count,
                   SampledToken& out);
  const float* Adjust(const float* logits, const SamplingParams& params,
                      std::span<const int32_t> history, int64_t prompt_length);
  bool Forbid(const std::vector<uint32_t>& allowed);
  void Penalise(const SamplingParams& params, std::span<const int32_t> history,
                int64_t prompt_length);
  int32_t Draw(const float* logits, const SamplingParams& params, uint64_t position);
  double KeepMostLikely(const SamplingParams& params);

  const int64_t vocab_;
  const Kernels& kernels_;
  std::vector<float> adjusted_;     // Logits after bias and penalties.
  std::vector<float> weights_;      // exp((logit - max) / temperature).
  std::vector<int32_t> candidates_;
  std::vector<int32_t> counts_;     // Of tokens of the history; zero between calls.
};

}  // namespace penstock::engine
