// What the GPU must be told to choose the tokens of a step, and what it answers:
// plain arrays, filled and read on the host. The draw itself is made here, by
// the same Philox as on the CPU.
//
// Memory is reserved once. Histories go along only for sequences that penalise
// what came before.
#pragma once

#include <cstdint>
#include <vector>

#include "backend-engine/kernels/cuda/cuda_kernels.h"
#include "backend-engine/kernels/cuda/peers.h"
#include "backend-engine/sched/step.h"

namespace penstock::engine {

class GpuSampling {
 public:
  // Of a step: at most so many rows, tokens of their histories, biases.
  GpuSampling(int64_t rows_max, int64_t history_max, int64_t biases_max, int64_t vocab);

  void Clear();

  // A row for `sequence`, whose logits are row `logit_row` of the step's. False:
  // more history or biases than there is memory for. Without settings: greedy.
  [[nodiscard]] bool Add(const StepSequence& sequence, int32_t logit_row);

  const std::vector<cuda::SampleRow>& rows() const { return rows_; }
  const std::vector<int32_t>& history() const { return history_; }
  const std::vector<cuda::TokenBias>& biases() const { return biases_; }
  const std::vector<uint32_t>& masks() const { return masks_; }
  // Places of history() that the step before fills.
  const std::vector<cuda::TokenPlace>& awaited() const { return awaited_; }

 private:
  std::vector<cuda::SampleRow> rows_;
  std::vector<int32_t> history_;
  std::vector<cuda::TokenBias> biases_;
  std::vector<cuda::TokenPlace> awaited_;
  const size_t mask_words_;
  std::vector<uint32_t> masks_;
};

// The answer for one row, all but its id. `logprobs`: of its SamplingParams.
void ReadSampled(const cuda::SampledRow& row, int32_t logprobs, int64_t vocab, SampledToken& out);

}  // namespace penstock::engine
