#include "backend-engine/model/weight_plan.h"

#include <utility>

namespace penstock::engine {
namespace {

std::string ShapeText(const std::vector<int64_t>& shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) {
    text += (i == 0 ? "" : ", ") + std::to_string(shape[i]);
  }
  return text + "]";
}

class Planner {
 public:
  Planner(const ModelConfig& config, const Shard& shard, WeightPlan& plan)
      : config_(config), shard_(shard), plan_(plan) {}

  void Plan() {
    const int64_t hidden = config_.hidden_size;
    const Range all{0, hidden};
    Target(WeightRole::kEmbeddings, 0, shard_.vocab_padded, hidden);
    Rows("model.embed_tokens.weight", {config_.vocab_size, hidden}, shard_.vocab, all, 0);
    for (int64_t i = 0; i < config_.layer_count; ++i) PlanLayer(i);
    Target(WeightRole::kFinalNorm, 0, hidden);
    Elements("model.norm.weight", hidden, all, 0);
    if (config_.tied_embeddings) return;
    Target(WeightRole::kLmHead, 0, shard_.vocab_padded, hidden);
    Rows("lm_head.weight", {config_.vocab_size, hidden}, shard_.vocab, all, 0);
  }

 private:
  // Parts that follow belong to this target.
  void Target(WeightRole role, int64_t layer, int64_t rows, int64_t cols = 1) {
    plan_.targets.push_back({role, layer, rows, cols});
  }

  void Rows(std::string name, std::vector<int64_t> shape, Range rows, Range cols, int64_t at) {
    plan_.parts.push_back({.name = std::move(name), .shape = std::move(shape), .rows = rows,
                           .cols = cols, .target = static_cast<int>(plan_.targets.size()) - 1,
                           .at = at, .view = {}});
  }

  void Elements(std::string name, int64_t size, Range range, int64_t at) {
    Rows(std::move(name), {size}, range, {0, 1}, at);
  }

  Range HeadRows(Range heads) const {
    return {heads.first * config_.head_dim, heads.count * config_.head_dim};
  }

  void PlanLayer(int64_t layer) {
    const std::string prefix = "model.layers." + std::to_string(layer) + ".";
    const Range all{0, config_.hidden_size};
    Target(WeightRole::kInputNorm, layer, all.count);
    Elements(prefix + "input_layernorm.weight", all.count, all, 0);
    PlanAttention(prefix + "self_attn.", layer);
    Target(WeightRole::kMlpNorm, layer, all.count);
    Elements(prefix + "post_attention_layernorm.weight", all.count, all, 0);
    PlanMlp(prefix + "mlp.", layer);
  }

  void PlanAttention(const std::string& prefix, int64_t layer) {
    const int64_t hidden = config_.hidden_size;
    const int64_t q_size = config_.head_count * config_.head_dim;
    const int64_t kv_size = config_.kv_head_count * config_.head_dim;
    const Range q = HeadRows(shard_.heads);
    const Range kv = HeadRows(shard_.kv_heads);
    const int64_t rows = q.count + 2 * kv.count;
    const Range all{0, hidden};
    Target(WeightRole::kQkv, layer, rows, hidden);
    Rows(prefix + "q_proj.weight", {q_size, hidden}, q, all, 0);
    Rows(prefix + "k_proj.weight", {kv_size, hidden}, kv, all, q.count);
    Rows(prefix + "v_proj.weight", {kv_size, hidden}, kv, all, q.count + kv.count);
    if (config_.qkv_bias) {
      Target(WeightRole::kQkvBias, layer, rows);
      Elements(prefix + "q_proj.bias", q_size, q, 0);
      Elements(prefix + "k_proj.bias", kv_size, kv, q.count);
      Elements(prefix + "v_proj.bias", kv_size, kv, q.count + kv.count);
    }
    Target(WeightRole::kOutput, layer, hidden, q.count);
    Rows(prefix + "o_proj.weight", {hidden, q_size}, all, q, 0);
    if (config_.output_bias && shard_.rank == 0) {
      Target(WeightRole::kOutputBias, layer, hidden);
      Elements(prefix + "o_proj.bias", hidden, all, 0);
    }
  }

  void PlanMlp(const std::string& prefix, int64_t layer) {
    const int64_t hidden = config_.hidden_size;
    const int64_t inner = config_.intermediate_size;
    const int64_t padded = shard_.intermediate_padded;
    const Range ours = shard_.intermediate;
    const Range all{0, hidden};
    Target(WeightRole::kGateUp, layer, 2 * padded, hidden);
    Rows(prefix + "gate_proj.weight", {inner, hidden}, ours, all, 0);
    Rows(prefix + "up_proj.weight", {inner, hidden}, ours, all, padded);
    if (config_.mlp_bias) {
      Target(WeightRole::kGateUpBias, layer, 2 * padded);
      Elements(prefix + "gate_proj.bias", inner, ours, 0);
      Elements(prefix + "up_proj.bias", inner, ours, padded);
    }
    Target(WeightRole::kDown, layer, hidden, padded);
    Rows(prefix + "down_proj.weight", {hidden, inner}, all, ours, 0);
    if (config_.mlp_bias && shard_.rank == 0) {
      Target(WeightRole::kDownBias, layer, hidden);
      Elements(prefix + "down_proj.bias", hidden, all, 0);
    }
  }

  const ModelConfig& config_;
  const Shard& shard_;
  WeightPlan& plan_;
};

}  // namespace

WeightPlan PlanWeights(const ModelConfig& config, const Shard& shard) {
  WeightPlan plan;
  Planner(config, shard, plan).Plan();
  return plan;
}

bool FindTensors(const TensorSource& source, WeightPlan& plan, std::string& error) {
  for (WeightPart& part : plan.parts) {
    const std::optional<TensorView> view = source(part.name);
    if (!view.has_value()) {
      error = "tensor " + part.name + " is missing; expected it with shape " +
              ShapeText(part.shape);
      return false;
    }
    if (view->shape != part.shape) {
      error = "tensor " + part.name + " has shape " + ShapeText(view->shape) + ", expected " +
              ShapeText(part.shape) + " by config.json";
      return false;
    }
    int64_t bytes = static_cast<int64_t>(SizeOf(view->dtype));
    for (const int64_t dim : part.shape) bytes *= dim;
    if (static_cast<int64_t>(view->bytes.size()) != bytes) {
      error = "tensor " + part.name + " has " + std::to_string(view->bytes.size()) +
              " bytes, expected " + std::to_string(bytes) + " for its shape";
      return false;
    }
    part.view = *view;
  }
  return true;
}

int64_t SourceBytes(const WeightPart& part) {
  return part.rows.count * part.cols.count * static_cast<int64_t>(SizeOf(part.view.dtype));
}

}  // namespace penstock::engine
