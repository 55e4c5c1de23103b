// The decoder once more, as a book would write it: doubles, whole sequences, no
// cache, no ranks, no kernels. What the engine computes is held against this.
#pragma once

#include <cmath>
#include <string>
#include <vector>

#include "backend-engine/model/rope.h"
#include "tests/backend-engine/model/random_model.h"

namespace penstock::engine {

class PlainForward {
 public:
  explicit PlainForward(const RandomModel& model) : model_(model), config_(model.config()) {}

  // Logits after every token.
  std::vector<std::vector<double>> Run(const std::vector<int32_t>& tokens) const {
    const std::vector<float> table = model_.Numbers("model.embed_tokens.weight");
    Rows hidden;
    for (const int32_t token : tokens) {
      hidden.emplace_back(table.begin() + token * config_.hidden_size,
                          table.begin() + (token + 1) * config_.hidden_size);
    }
    for (int64_t i = 0; i < config_.layer_count; ++i) {
      const std::string prefix = "model.layers." + std::to_string(i) + ".";
      Add(hidden, Attention(prefix + "self_attn.",
                            Norm(hidden, prefix + "input_layernorm.weight")));
      Add(hidden, Mlp(prefix + "mlp.", Norm(hidden, prefix + "post_attention_layernorm.weight")));
    }
    return Linear(Norm(hidden, "model.norm.weight"),
                  config_.tied_embeddings ? "model.embed_tokens" : "lm_head", false);
  }

 private:
  using Rows = std::vector<std::vector<double>>;

  static void Add(Rows& sum, const Rows& x) {
    for (size_t t = 0; t < sum.size(); ++t) {
      for (size_t i = 0; i < sum[t].size(); ++i) sum[t][i] += x[t][i];
    }
  }

  Rows Norm(Rows x, const std::string& name) const {
    const std::vector<float> weight = model_.Numbers(name);
    for (std::vector<double>& row : x) {
      double squares = 0;
      for (const double value : row) squares += value * value;
      const double size = std::sqrt(squares / static_cast<double>(row.size()) + config_.rms_eps);
      for (size_t i = 0; i < row.size(); ++i) row[i] = row[i] / size * weight[i];
    }
    return x;
  }

  Rows Linear(const Rows& x, const std::string& name, bool biased) const {
    const std::vector<float> weight = model_.Numbers(name + ".weight");
    const size_t cols = x[0].size();
    const size_t rows = weight.size() / cols;
    const std::vector<float> bias =
        biased ? model_.Numbers(name + ".bias") : std::vector<float>(rows);
    Rows y;
    for (const std::vector<double>& row : x) {
      std::vector<double>& out = y.emplace_back(bias.begin(), bias.end());
      for (size_t r = 0; r < rows; ++r) {
        for (size_t c = 0; c < cols; ++c) out[r] += weight[r * cols + c] * row[c];
      }
    }
    return y;
  }

  // Turns every head of every row by the row's position.
  void Rope(Rows& x) const {
    const std::vector<float> frequencies = RopeFrequencies(config_, config_.max_positions);
    const double factor = RopeFactor(config_.rope);
    const auto dim = static_cast<size_t>(config_.head_dim);
    for (size_t t = 0; t < x.size(); ++t) {
      for (size_t head = 0; head < x[t].size(); head += dim) {
        for (size_t i = 0; i < dim / 2; ++i) {
          const double angle = static_cast<double>(t) * frequencies[i];
          const double a = x[t][head + i];
          const double b = x[t][head + dim / 2 + i];
          x[t][head + i] = (a * std::cos(angle) - b * std::sin(angle)) * factor;
          x[t][head + dim / 2 + i] = (b * std::cos(angle) + a * std::sin(angle)) * factor;
        }
      }
    }
  }

  Rows Attention(const std::string& prefix, const Rows& x) const {
    Rows q = Linear(x, prefix + "q_proj", config_.qkv_bias);
    Rows k = Linear(x, prefix + "k_proj", config_.qkv_bias);
    const Rows v = Linear(x, prefix + "v_proj", config_.qkv_bias);
    Rope(q);
    Rope(k);
    const auto dim = static_cast<size_t>(config_.head_dim);
    const auto group = static_cast<size_t>(config_.head_count / config_.kv_head_count);
    Rows out(x.size(), std::vector<double>(q[0].size()));
    for (size_t t = 0; t < x.size(); ++t) {
      for (size_t head = 0; head * dim < q[0].size(); ++head) {
        const size_t kv = head / group * dim;
        std::vector<double> weights;
        double sum = 0;
        for (size_t p = 0; p <= t; ++p) {
          double score = 0;
          for (size_t i = 0; i < dim; ++i) score += q[t][head * dim + i] * k[p][kv + i];
          weights.push_back(std::exp(score / std::sqrt(static_cast<double>(dim))));
          sum += weights.back();
        }
        for (size_t p = 0; p <= t; ++p) {
          for (size_t i = 0; i < dim; ++i) {
            out[t][head * dim + i] += weights[p] / sum * v[p][kv + i];
          }
        }
      }
    }
    return Linear(out, prefix + "o_proj", config_.output_bias);
  }

  Rows Mlp(const std::string& prefix, const Rows& x) const {
    Rows gate = Linear(x, prefix + "gate_proj", config_.mlp_bias);
    const Rows up = Linear(x, prefix + "up_proj", config_.mlp_bias);
    for (size_t t = 0; t < gate.size(); ++t) {
      for (size_t i = 0; i < gate[t].size(); ++i) {
        gate[t][i] = gate[t][i] / (1.0 + std::exp(-gate[t][i])) * up[t][i];
      }
    }
    return Linear(gate, prefix + "down_proj", config_.mlp_bias);
  }

  const RandomModel& model_;
  const ModelConfig& config_;
};

}  // namespace penstock::engine
