#include "backend-engine/model/llama.h"

#include <algorithm>
#include <cmath>

namespace penstock::engine {

Llama::Llama(const ModelConfig& config, const Shard& shard, const Weights& weights,
             const RopeTable& rope, std::span<const KvLayer> kv, const Kernels& kernels,
             Comm& comm, int64_t tokens_max, int64_t rows_max)
    : config_(config), shard_(shard), weights_(weights), rope_(rope), kv_(kv), kernels_(kernels),
      comm_(comm) {
  const int64_t hidden = config.hidden_size;
  const int64_t attended = shard.heads.count * config.head_dim;
  const int64_t inner = shard.intermediate_padded;
  const struct {
    float** place;
    int64_t count;
  } parts[] = {{&residual_, tokens_max * hidden},
               {&normed_, std::max(tokens_max, rows_max) * hidden},
               {&branch_, tokens_max * hidden},
               {&qkv_, tokens_max * shard.qkv_rows(config)},
               {&attended_, tokens_max * attended},
               {&gate_up_, tokens_max * 2 * inner},
               {&gated_, tokens_max * inner},
               {&logits_, rows_max * shard.vocab_padded},
               {&attention_scratch_,
                AttentionScratch(config.head_dim, kv.empty() ? 1 : kv[0].block_tokens)}};
  constexpr int64_t kLine = 16;  // Floats of a cache line: parts do not share one.
  int64_t total = 0;
  for (const auto& part : parts) total += (part.count + kLine - 1) / kLine * kLine;
  arena_.resize(static_cast<size_t>(total));
  float* next = arena_.data();
  for (const auto& part : parts) {
    *part.place = next;
    next += (part.count + kLine - 1) / kLine * kLine;
  }
  const int64_t widest = std::max({hidden, attended, inner});
  linear_scratch_.resize(
      static_cast<size_t>(LinearScratch(std::max(tokens_max, rows_max), widest)));
}

bool Llama::Forward(const StepInput& input) {
  tokens_ = static_cast<int64_t>(input.tokens.size());
  if (!Embed(input)) return false;
  const float* added = nullptr;  // What the last block found, not yet in the residual.
  for (size_t i = 0; i < weights_.layers.size(); ++i) {
    const LayerWeights& layer = weights_.layers[i];
    Norm(added, layer.input_norm);
    if (!Attention(layer, kv_[i], input)) return false;
    Norm(branch_, layer.mlp_norm);
    if (!Mlp(layer)) return false;
    added = branch_;
  }
  Norm(added, weights_.final_norm);
  Logits(input);
  return true;
}

bool Llama::Embed(const StepInput& input) {
  kernels_.embed({.tokens = input.tokens.data(),
                  .token_count = tokens_,
                  .table = weights_.embeddings,
                  .first_row = shard_.vocab.first,
                  .out = residual_});
  return comm_.AllReduceSum(residual_, tokens_ * config_.hidden_size);
}

bool Llama::Attention(const LayerWeights& layer, const KvLayer& kv, const StepInput& input) {
  const auto heads = static_cast<int32_t>(shard_.heads.count);
  Project(normed_, tokens_, layer.qkv, layer.qkv_bias, qkv_);
  kernels_.rope_kv_write({.qkv = qkv_,
                          .token_count = tokens_,
                          .heads = heads,
                          .positions = input.positions.data(),
                          .slots = input.slots.data(),
                          .cosines = rope_.cosines.data(),
                          .sines = rope_.sines.data(),
                          .kv = kv});
  kernels_.paged_attention({.qkv = qkv_,
                            .heads = heads,
                            .scale = 1.0f / std::sqrt(static_cast<float>(config_.head_dim)),
                            .kv = kv,
                            .sequences = input.sequences.data(),
                            .sequence_count = static_cast<int64_t>(input.sequences.size()),
                            .out = attended_,
                            .scratch = attention_scratch_});
  Project(attended_, tokens_, layer.output, layer.output_bias, branch_);
  return comm_.AllReduceSum(branch_, tokens_ * config_.hidden_size);
}

bool Llama::Mlp(const LayerWeights& layer) {
  Project(normed_, tokens_, layer.gate_up, layer.gate_up_bias, gate_up_);
  kernels_.silu_mul({.gate_up = gate_up_,
                     .token_count = tokens_,
                     .width = shard_.intermediate_padded,
                     .out = gated_});
  Project(gated_, tokens_, layer.down, layer.down_bias, branch_);
  return comm_.AllReduceSum(branch_, tokens_ * config_.hidden_size);
}

// The wanted rows are gathered where the last block's branch was.
void Llama::Logits(const StepInput& input) {
  const int64_t hidden = config_.hidden_size;
  int64_t rows = 0;
  for (const int32_t token : input.logit_rows) {
    std::copy_n(normed_ + token * hidden, hidden, branch_ + rows++ * hidden);
  }
  Project(branch_, rows, weights_.lm_head, nullptr, logits_);
}

void Llama::Norm(const float* added, const float* weight) {
  kernels_.rms_norm({.x = added,
                     .residual = residual_,
                     .weight = weight,
                     .token_count = tokens_,
                     .width = config_.hidden_size,
                     .eps = static_cast<float>(config_.rms_eps),
                     .out = normed_});
}

void Llama::Project(const float* x, int64_t rows, const Matrix& weight, const float* bias,
                    float* y) {
  kernels_.linear({.x = x,
                   .token_count = rows,
                   .weight = weight,
                   .bias = bias,
                   .y = y,
                   .scratch = linear_scratch_.data()});
}

}  // namespace penstock::engine
