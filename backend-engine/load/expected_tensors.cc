#include "backend-engine/load/expected_tensors.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace penstock::engine {

std::vector<ExpectedTensor> ExpectedTensors(const ModelConfig& config) {
  const int64_t hidden = config.hidden_size;
  const int64_t query = config.head_count * config.head_dim;
  const int64_t kv = config.kv_head_count * config.head_dim;
  const int64_t inner = config.intermediate_size;
  std::vector<ExpectedTensor> out = {{"model.embed_tokens.weight", {config.vocab_size, hidden}},
                                     {"model.norm.weight", {hidden}}};
  if (!config.tied_embeddings) out.push_back({"lm_head.weight", {config.vocab_size, hidden}});
  for (int64_t layer = 0; layer < config.layer_count; ++layer) {
    const auto linear = [&](const char* name, int64_t rows, int64_t columns, bool bias) {
      const std::string full = fmt::format("model.layers.{}.{}", layer, name);
      out.push_back({full + ".weight", {rows, columns}});
      if (bias) out.push_back({full + ".bias", {rows}});
    };
    for (const char* norm : {"input_layernorm", "post_attention_layernorm"}) {
      out.push_back({fmt::format("model.layers.{}.{}.weight", layer, norm), {hidden}});
    }
    linear("self_attn.q_proj", query, hidden, config.qkv_bias);
    linear("self_attn.k_proj", kv, hidden, config.qkv_bias);
    linear("self_attn.v_proj", kv, hidden, config.qkv_bias);
    linear("self_attn.o_proj", hidden, query, config.output_bias);
    linear("mlp.gate_proj", inner, hidden, config.mlp_bias);
    linear("mlp.up_proj", inner, hidden, config.mlp_bias);
    linear("mlp.down_proj", hidden, inner, config.mlp_bias);
  }
  return out;
}

absl::Status CheckExpectedTensors(const ModelConfig& config, const TensorSource& source) {
  constexpr size_t kNamedMax = 4;
  std::string named;
  size_t wrong = 0;
  for (const ExpectedTensor& expected : ExpectedTensors(config)) {
    const std::optional<TensorView> found = source(expected.name);
    if (found.has_value() && found->shape == expected.shape) continue;
    if (++wrong > kNamedMax) continue;
    named += fmt::format("{}{} {}, expected [{}]", wrong > 1 ? "; " : "", expected.name,
                         found ? fmt::format("is [{}]", fmt::join(found->shape, ", ")) : "missing",
                         fmt::join(expected.shape, ", "));
  }
  if (wrong == 0) return absl::OkStatus();
  return absl::InvalidArgumentError(fmt::format(
      "{} tensor(s) do not fit config.json: {}{}", wrong, named,
      wrong > kNamedMax ? fmt::format("; and {} more", wrong - kNamedMax) : ""));
}

}  // namespace penstock::engine
