#include "backend-engine/load/model_config_parse.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <string>
#include <utility>

#include <fmt/format.h>

#include "absl/status/status.h"
#include "backend-engine/load/json_file.h"

namespace penstock::engine {
namespace {

using nlohmann::json;

constexpr size_t kEosIdsMax = 64;
constexpr int64_t kPositionsMax = int64_t{1} << 27;

// Reads fields of one object; remembers the first thing that is wrong, so that
// a caller reads all it wants and asks once.
class Fields {
 public:
  Fields(const json& object, std::string place) : object_(object), place_(std::move(place)) {}

  const absl::Status& status() const { return status_; }

  bool Has(const char* name) const { return Find(name) != nullptr; }

  int64_t Int(const char* name, int64_t low, int64_t high, std::optional<int64_t> absent = {}) {
    const json* value = Find(name);
    if (value == nullptr) {
      if (!absent.has_value()) Fail(name, "missing", fmt::format("{} to {}", low, high));
      return absent.value_or(low);
    }
    const bool fits = value->is_number_unsigned()
                          ? value->get<uint64_t>() <= static_cast<uint64_t>(INT64_MAX)
                          : value->is_number_integer();
    if (!fits || value->get<int64_t>() < low || value->get<int64_t>() > high) {
      Fail(name, Shown(*value), fmt::format("a whole number from {} to {}", low, high));
      return low;
    }
    return value->get<int64_t>();
  }

  double Real(const char* name, double low, double high, std::optional<double> absent = {}) {
    const json* value = Find(name);
    if (value == nullptr) {
      if (!absent.has_value()) Fail(name, "missing", fmt::format("{} to {}", low, high));
      return absent.value_or(low);
    }
    if (!value->is_number() || !(value->get<double>() >= low && value->get<double>() <= high)) {
      Fail(name, Shown(*value), fmt::format("a number from {} to {}", low, high));
      return low;
    }
    return value->get<double>();
  }

  bool Bool(const char* name, bool absent) {
    const json* value = Find(name);
    if (value == nullptr) return absent;
    if (!value->is_boolean()) Fail(name, Shown(*value), "true or false");
    return value->is_boolean() && value->get<bool>();
  }

  std::string Text(const char* name, const std::string& absent) {
    const json* value = Find(name);
    if (value == nullptr) return absent;
    if (!value->is_string()) Fail(name, Shown(*value), "a string");
    return value->is_string() ? value->get<std::string>() : absent;
  }

  // An object, or nullptr where the field is absent or null.
  const json* Object(const char* name) {
    const json* value = Find(name);
    if (value != nullptr && !value->is_object()) Fail(name, Shown(*value), "an object");
    return value != nullptr && value->is_object() ? value : nullptr;
  }

  const json* Find(const char* name) const {
    const auto found = object_.find(name);
    return found == object_.end() || found->is_null() ? nullptr : &*found;
  }

  void Fail(const char* name, const std::string& found, const std::string& allowed) {
    if (!status_.ok()) return;
    status_ = absl::InvalidArgumentError(
        fmt::format("{}: {}: found {}; allowed: {}", place_, name, found, allowed));
  }

 private:
  static std::string Shown(const json& value) {
    if (value.is_string()) return Quoted(value.get_ref<const std::string&>());
    if (value.is_structured()) return value.is_array() ? "a list" : "an object";
    return value.dump();
  }

  const json& object_;
  std::string place_;
  absl::Status status_;
};

void ReadRopeKind(Fields& fields, ModelConfig& config, const std::string& kind) {
  RopeConfig& rope = config.rope;
  if (kind == "default") return;
  constexpr const char* kKinds[] = {"linear", "dynamic", "llama3", "yarn"};
  if (std::find(std::begin(kKinds), std::end(kKinds), kind) == std::end(kKinds)) {
    return fields.Fail("rope_type", Quoted(kind), "default, linear, dynamic, llama3, yarn");
  }
  rope.factor = fields.Real("factor", 1.0, 1e6);
  rope.original_max_positions =
      fields.Int("original_max_position_embeddings", 1, kPositionsMax, config.max_positions);
  if (kind == "linear") {
    rope.kind = RopeKind::kLinear;
  } else if (kind == "dynamic") {
    rope.kind = RopeKind::kDynamic;
  } else if (kind == "llama3") {
    rope.kind = RopeKind::kLlama3;
    rope.low_freq_factor = fields.Real("low_freq_factor", 1e-6, 1e6);
    rope.high_freq_factor = fields.Real("high_freq_factor", 1e-6, 1e6);
    if (rope.high_freq_factor <= rope.low_freq_factor) {
      fields.Fail("high_freq_factor", fmt::format("{}", rope.high_freq_factor),
                  fmt::format("more than low_freq_factor, {}", rope.low_freq_factor));
    }
  } else {
    rope.kind = RopeKind::kYarn;
    rope.beta_fast = fields.Real("beta_fast", 1e-3, 1e6, 32.0);
    rope.beta_slow = fields.Real("beta_slow", 1e-3, 1e6, 1.0);
    rope.attention_factor = fields.Real("attention_factor", 0.0, 1e3, 0.0);
    if (fields.Has("mscale") || fields.Has("mscale_all_dim")) {
      fields.Fail("mscale", "a value", "no mscale for this architecture");
    }
  }
}

// How far the embedding reaches where it is stretched. Frequencies of yarn and linear do
// not depend on the length in use, so that all of it is offered; of dynamic they do, so
// that what goes beyond max_position_embeddings is for whoever asks.
void StretchPositions(ModelConfig& config) {
  const RopeConfig& rope = config.rope;
  const bool stretches = rope.kind == RopeKind::kYarn || rope.kind == RopeKind::kLinear ||
                         rope.kind == RopeKind::kDynamic;
  config.positions_limit = config.max_positions;
  if (!stretches) return;
  const double reach = static_cast<double>(rope.original_max_positions) * rope.factor;
  config.positions_limit =
      std::max(config.max_positions, static_cast<int64_t>(std::min<double>(reach, kPositionsMax)));
  if (rope.kind != RopeKind::kDynamic) config.max_positions = config.positions_limit;
}

// Two spellings: rope_scaling beside rope_theta, and rope_parameters with both.
absl::Status ReadRope(Fields& top, ModelConfig& config) {
  const json* newer = top.Object("rope_parameters");
  const json* object = newer != nullptr ? newer : top.Object("rope_scaling");
  config.rope.theta = top.Real("rope_theta", 1.0, 1e12, 10000.0);
  config.positions_limit = config.max_positions;
  if (object == nullptr) return top.status();
  Fields fields(*object,
                newer != nullptr ? "config.json: rope_parameters" : "config.json: rope_scaling");
  config.rope.theta = fields.Real("rope_theta", 1.0, 1e12, config.rope.theta);
  const std::string older_name = fields.Text("type", "default");
  std::string kind = fields.Text("rope_type", older_name);
  if (fields.Has("partial_rotary_factor")) fields.Real("partial_rotary_factor", 1.0, 1.0);
  ReadRopeKind(fields, config, kind);
  StretchPositions(config);
  return top.status().ok() ? fields.status() : top.status();
}

std::vector<int32_t> ReadEosIds(Fields& fields, int64_t vocab_size) {
  std::vector<int32_t> ids;
  const json* value = fields.Find("eos_token_id");
  if (value == nullptr) return ids;
  const json list = value->is_array() ? *value : json::array({*value});
  if (list.size() > kEosIdsMax) {
    fields.Fail("eos_token_id", fmt::format("{} ids", list.size()),
                fmt::format("at most {}", kEosIdsMax));
    return ids;
  }
  for (const json& id : list) {
    if (!id.is_number_unsigned() || id.get<uint64_t>() >= static_cast<uint64_t>(vocab_size)) {
      fields.Fail("eos_token_id", id.is_number() ? id.dump() : std::string("no number"),
                  fmt::format("token ids from 0 to {}", vocab_size - 1));
      return ids;
    }
    ids.push_back(id.get<int32_t>());
  }
  return ids;
}

void ReadArchitecture(Fields& fields, ModelConfig& config) {
  const std::string type = fields.Text("model_type", "");
  if (type == "llama") {
    config.architecture = Architecture::kLlama;
    config.qkv_bias = fields.Bool("attention_bias", false);
    config.output_bias = config.qkv_bias;
    config.mlp_bias = fields.Bool("mlp_bias", false);
  } else if (type == "qwen2") {
    config.architecture = Architecture::kQwen2;
    config.qkv_bias = true;
  } else {
    fields.Fail("model_type", type.empty() ? "missing" : Quoted(type),
                "llama, qwen2 (the architectures this engine computes)");
  }
}

void ReadSizes(Fields& fields, ModelConfig& config) {
  config.vocab_size = fields.Int("vocab_size", 1, 1 << 22);
  config.hidden_size = fields.Int("hidden_size", 1, 1 << 17);
  config.intermediate_size = fields.Int("intermediate_size", 1, 1 << 20);
  config.layer_count = fields.Int("num_hidden_layers", 1, 1024);
  config.head_count = fields.Int("num_attention_heads", 1, 4096);
  config.kv_head_count = fields.Int("num_key_value_heads", 1, 4096, config.head_count);
  config.max_positions = fields.Int("max_position_embeddings", 1, kPositionsMax);
  config.rms_eps = fields.Real("rms_norm_eps", 1e-12, 0.1, 1e-6);
  config.tied_embeddings = fields.Bool("tie_word_embeddings", false);
  if (config.head_count % config.kv_head_count != 0) {
    fields.Fail("num_key_value_heads", std::to_string(config.kv_head_count),
                fmt::format("a divisor of num_attention_heads, {}", config.head_count));
  }
  if (fields.Has("head_dim")) {
    config.head_dim = fields.Int("head_dim", 2, 1024);
  } else if (config.hidden_size % config.head_count == 0) {
    config.head_dim = config.hidden_size / config.head_count;
  } else {
    fields.Fail("hidden_size", std::to_string(config.hidden_size),
                fmt::format("a multiple of num_attention_heads, {}", config.head_count));
  }
  if (config.head_dim < 2 || config.head_dim % 2 != 0 || config.head_dim > 1024) {
    fields.Fail("head_dim", std::to_string(config.head_dim), "an even number from 2 to 1024");
  }
}

// Fields that would change the arithmetic in ways the engine does not compute.
// REQUIRES: ReadRope().
void RefuseWhatWeDoNotCompute(Fields& fields, const ModelConfig& config) {
  const std::string activation = fields.Text("hidden_act", "silu");
  if (activation != "silu" && activation != "swish") {
    fields.Fail("hidden_act", Quoted(activation), "silu");
  }
  if (fields.Bool("use_sliding_window", false) &&
      fields.Int("max_window_layers", 0, 1 << 20, 28) < config.layer_count &&
      fields.Int("sliding_window", 1, INT64_MAX, 4096) < config.positions_limit) {
    fields.Fail("use_sliding_window", "true", "false (sliding windows are not computed)");
  }
  if (fields.Object("quantization_config") != nullptr) {
    fields.Fail("quantization_config", "an object",
                "none: weights in f32, bf16 or f16; use the unquantised checkpoint");
  }
  if (fields.Has("partial_rotary_factor")) fields.Real("partial_rotary_factor", 1.0, 1.0);
}

GenerationDefaults ReadGeneration(Fields& fields) {
  GenerationDefaults defaults;
  if (fields.Has("temperature")) defaults.temperature = fields.Real("temperature", 0.0, 100.0);
  if (fields.Has("top_p")) defaults.top_p = fields.Real("top_p", 0.0, 1.0);
  if (fields.Has("min_p")) defaults.min_p = fields.Real("min_p", 0.0, 1.0);
  if (fields.Has("top_k")) defaults.top_k = fields.Int("top_k", -1, 1 << 22);
  if (fields.Has("repetition_penalty")) {
    defaults.repetition_penalty = fields.Real("repetition_penalty", 1e-3, 100.0);
  }
  if (fields.Has("max_new_tokens")) {
    defaults.max_new_tokens = fields.Int("max_new_tokens", 1, 1 << 27);
  }
  // Only a file that says so samples not at all; silence is left to the caller.
  if (fields.Has("do_sample") && !fields.Bool("do_sample", true)) defaults.temperature = 0.0;
  return defaults;
}

}  // namespace

absl::StatusOr<ParsedConfig> ParseModelConfig(std::string_view config_text,
                                              std::string_view generation_text,
                                              std::string_view name) {
  absl::StatusOr<json> document = ParseStrictJson(config_text, "config.json");
  if (!document.ok()) return document.status();
  if (!document->is_object()) return absl::InvalidArgumentError("config.json: not an object");

  ParsedConfig parsed;
  ModelConfig& config = parsed.model;
  config.name = name;
  Fields fields(*document, "config.json");
  ReadArchitecture(fields, config);
  if (!fields.status().ok()) return fields.status();
  ReadSizes(fields, config);
  config.eos_token_ids = ReadEosIds(fields, config.vocab_size);
  if (absl::Status status = ReadRope(fields, config); !status.ok()) return status;
  RefuseWhatWeDoNotCompute(fields, config);
  if (!fields.status().ok()) return fields.status();

  if (!generation_text.empty()) {
    absl::StatusOr<json> generation = ParseStrictJson(generation_text, "generation_config.json");
    if (!generation.ok()) return generation.status();
    if (!generation->is_object()) {
      return absl::InvalidArgumentError("generation_config.json: not an object");
    }
    Fields more(*generation, "generation_config.json");
    parsed.generation = ReadGeneration(more);
    for (const int32_t id : ReadEosIds(more, config.vocab_size)) {
      auto& ids = config.eos_token_ids;
      if (std::find(ids.begin(), ids.end(), id) == ids.end()) ids.push_back(id);
    }
    if (!more.status().ok()) return more.status();
  }
  return parsed;
}

}  // namespace penstock::engine
