// The decoder that Llama and Qwen2 share, as one tensor-parallel rank computes
// it: pre-norm blocks of grouped-query attention with rotary positions and a
// gated MLP. Two sums over all ranks a layer, one after the embedding.
//
// All memory of a step is taken at construction, for the largest step.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "backend-engine/kernels/kernels.h"
#include "backend-engine/model/model_config.h"
#include "backend-engine/model/rope.h"
#include "backend-engine/model/shard.h"
#include "backend-engine/model/step_input.h"
#include "backend-engine/model/weights.h"
#include "backend-engine/parallel/comm.h"

namespace penstock::engine {

class Llama {
 public:
  // Everything given is borrowed. `kv`: the paged cache of each layer, with
  // this rank's heads. Logits of at most `rows_max` tokens are asked for at once.
  Llama(const ModelConfig& config, const Shard& shard, const Weights& weights,
        const RopeTable& rope, std::span<const KvLayer> kv, const Kernels& kernels, Comm& comm,
        int64_t tokens_max, int64_t rows_max);

  // Computes a step. False: the group was aborted, and there is no result.
  [[nodiscard]] bool Forward(const StepInput& input);

  // Of the last step: [logit_rows][shard.vocab_padded], of this rank's part of
  // the vocabulary.
  const float* logits() const { return logits_; }

 private:
  [[nodiscard]] bool Embed(const StepInput& input);
  [[nodiscard]] bool Attention(const LayerWeights& layer, const KvLayer& kv,
                               const StepInput& input);
  [[nodiscard]] bool Mlp(const LayerWeights& layer);
  void Logits(const StepInput& input);

  void Norm(const float* added, const float* weight);
  void Project(const float* x, int64_t rows, const Matrix& weight, const float* bias, float* y);

  const ModelConfig& config_;
  const Shard& shard_;
  const Weights& weights_;
  const RopeTable& rope_;
  const std::span<const KvLayer> kv_;
  const Kernels& kernels_;
  Comm& comm_;

  int64_t tokens_ = 0;            // Of the step being computed.
  std::vector<float> arena_;      // Everything below.
  float* residual_ = nullptr;     // [tokens][hidden]
  float* normed_ = nullptr;       // [tokens][hidden]
  float* branch_ = nullptr;       // [tokens][hidden]: what a block adds to the residual.
  float* qkv_ = nullptr;          // [tokens][qkv rows]
  float* attended_ = nullptr;     // [tokens][heads * head_dim]
  float* gate_up_ = nullptr;      // [tokens][2 * inner]
  float* gated_ = nullptr;        // [tokens][inner]
  float* logits_ = nullptr;       // [rows][vocab]
  float* attention_scratch_ = nullptr;
  std::vector<float> linear_scratch_;
};

}  // namespace penstock::engine
