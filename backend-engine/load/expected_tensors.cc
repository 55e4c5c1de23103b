#include "backend-engine/load/expected_tensors.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <charconv>
#include <string_view>

#include "absl/container/flat_hash_set.h"

namespace penstock::engine {
namespace {

constexpr size_t kNamedMax = 4;

// Computed from config.json, or a copy of the embeddings.
bool HoldsNothingOfItsOwn(const ModelConfig& config, std::string_view name) {
  return name.ends_with("rotary_emb.inv_freq") ||
         (config.tied_embeddings && name == "lm_head.weight");
}

bool IsOfALaterLayer(const ModelConfig& config, std::string_view name) {
  constexpr std::string_view kPrefix = "model.layers.";
  if (!name.starts_with(kPrefix)) return false;
  name.remove_prefix(kPrefix.size());
  int64_t layer = -1;
  std::from_chars(name.data(), name.data() + name.size(), layer);
  return layer >= config.layer_count;
}

std::string LikelyCause(const ModelConfig& config, std::string_view name) {
  if (IsOfALaterLayer(config, name)) {
    return fmt::format("num_hidden_layers in config.json is {}: too few?", config.layer_count);
  }
  if (name.ends_with(".bias")) {
    return "config.json says that there are no such biases: is its model_type right, are "
           "attention_bias and mlp_bias?";
  }
  return "is it of another architecture than model_type in config.json says?";
}

}  // namespace

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

absl::Status CheckUnexpectedTensors(const ModelConfig& config,
                                    const std::vector<std::string>& names) {
  absl::flat_hash_set<std::string> expected;
  for (ExpectedTensor& tensor : ExpectedTensors(config)) expected.insert(std::move(tensor.name));
  std::vector<std::string_view> found;
  size_t count = 0;
  for (const std::string& name : names) {
    if (expected.contains(name) || HoldsNothingOfItsOwn(config, name)) continue;
    if (++count <= kNamedMax) found.push_back(name);
  }
  if (count == 0) return absl::OkStatus();
  return absl::InvalidArgumentError(fmt::format(
      "{} tensor(s) that a model as in config.json does not have, so that its answers would be "
      "wrong: {}{}; {}",
      count, fmt::join(found, ", "),
      count > kNamedMax ? fmt::format(" and {} more", count - kNamedMax) : "",
      LikelyCause(config, found.front())));
}

}  // namespace penstock::engine
