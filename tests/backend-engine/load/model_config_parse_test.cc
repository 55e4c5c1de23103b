#include "backend-engine/load/model_config_parse.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace penstock::engine {
namespace {

using nlohmann::json;

json Good() {
  return {{"model_type", "llama"},     {"vocab_size", 1000},       {"hidden_size", 64},
          {"intermediate_size", 128},  {"num_hidden_layers", 2},   {"num_attention_heads", 4},
          {"num_key_value_heads", 2},  {"rms_norm_eps", 1e-5},     {"rope_theta", 500000.0},
          {"max_position_embeddings", 131072}, {"eos_token_id", 7}};
}

absl::StatusOr<ParsedConfig> With(const std::string& field, const json& value) {
  json config = Good();
  config[field] = value;
  return ParseModelConfig(config.dump(), "", "m");
}

std::string Error(const absl::StatusOr<ParsedConfig>& parsed) {
  return parsed.ok() ? "parsed" : std::string(parsed.status().message());
}

TEST(ModelConfigParse, ReadsALlama) {
  const auto parsed = ParseModelConfig(Good().dump(), "", "m");
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(parsed->model.head_dim, 16);
  EXPECT_EQ(parsed->model.kv_head_count, 2);
  EXPECT_FALSE(parsed->model.qkv_bias);
  EXPECT_EQ(parsed->model.rope.theta, 500000.0);
  EXPECT_EQ(parsed->model.eos_token_ids, (std::vector<int32_t>{7}));
  EXPECT_FALSE(parsed->generation.temperature.has_value());
}

TEST(ModelConfigParse, ReadsBothSpellingsOfRope) {
  const json scaling = {{"factor", 8.0}, {"low_freq_factor", 1.0}, {"high_freq_factor", 4.0},
                        {"original_max_position_embeddings", 8192}, {"rope_type", "llama3"}};
  const auto older = With("rope_scaling", scaling);
  json both = scaling;
  both["rope_theta"] = 500000.0;
  json config = Good();
  config.erase("rope_theta");
  config["rope_parameters"] = both;
  const auto newer = ParseModelConfig(config.dump(), "", "m");
  for (const auto* parsed : {&older, &newer}) {
    ASSERT_TRUE(parsed->ok()) << parsed->status();
    const RopeConfig& rope = (*parsed)->model.rope;
    EXPECT_EQ(rope.kind, RopeKind::kLlama3);
    EXPECT_EQ(rope.theta, 500000.0);
    EXPECT_EQ(rope.factor, 8.0);
    EXPECT_EQ(rope.original_max_positions, 8192);
  }
  const auto yarn = With("rope_scaling", {{"type", "yarn"}, {"factor", 4.0},
                                          {"original_max_position_embeddings", 32768}});
  ASSERT_TRUE(yarn.ok()) << yarn.status();
  EXPECT_EQ(yarn->model.rope.kind, RopeKind::kYarn);
}

TEST(ModelConfigParse, SaysOfAnUnknownRopeThatItIsOneWhateverElseItLacks) {
  EXPECT_EQ(Error(With("rope_scaling", {{"type", "mrope"}, {"mrope_section", {16, 24, 24}}})),
            "config.json: rope_scaling: rope_type: found \"mrope\"; allowed: default, linear, "
            "dynamic, llama3, yarn");
}

TEST(ModelConfigParse, PositionsReachAsFarAsTheRotaryEmbeddingIsStretched) {
  struct Reach {
    int64_t usual = 0, limit = 0;
    bool operator==(const Reach&) const = default;
  };
  const auto reach = [](const json& scaling) {
    const auto parsed = With("rope_scaling", scaling);
    EXPECT_TRUE(parsed.ok()) << parsed.status();
    return parsed.ok() ? Reach{parsed->model.max_positions, parsed->model.positions_limit} : Reach{};
  };
  constexpr int64_t kStored = 131072;
  EXPECT_EQ(reach(nullptr), (Reach{kStored, kStored}));
  EXPECT_EQ(reach({{"type", "yarn"}, {"factor", 4.0}, {"original_max_position_embeddings", kStored}}),
            (Reach{4 * kStored, 4 * kStored}));
  EXPECT_EQ(reach({{"type", "yarn"}, {"factor", 4.0}, {"original_max_position_embeddings", 32768}}),
            (Reach{kStored, kStored})) << "stretched already";
  EXPECT_EQ(reach({{"type", "linear"}, {"factor", 2.0}}), (Reach{2 * kStored, 2 * kStored}));
  EXPECT_EQ(reach({{"type", "dynamic"}, {"factor", 2.0}}), (Reach{kStored, 2 * kStored}));
  EXPECT_EQ(reach({{"type", "llama3"}, {"factor", 8.0}, {"low_freq_factor", 1.0},
                   {"high_freq_factor", 4.0}}), (Reach{kStored, kStored}));
}

TEST(ModelConfigParse, JoinsTheEosIdsOfBothFilesAndReadsDefaults) {
  const auto parsed = ParseModelConfig(
      Good().dump(), R"({"eos_token_id":[9,7,8],"temperature":0.6,"top_p":0.9,"top_k":20})", "m");
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(parsed->model.eos_token_ids, (std::vector<int32_t>{7, 9, 8}));
  EXPECT_EQ(parsed->generation.top_k, 20);
  EXPECT_EQ(ParseModelConfig(Good().dump(), R"({"top_k":-1})", "m")->generation.top_k, -1);
  const auto greedy = ParseModelConfig(Good().dump(), R"({"do_sample":false,"top_p":0.9})", "m");
  ASSERT_TRUE(greedy.ok());
  EXPECT_EQ(greedy->generation.temperature, 0.0);
}

TEST(ModelConfigParse, NamesTheSupportedArchitectures) {
  EXPECT_EQ(Error(With("model_type", "mamba")),
            "config.json: model_type: found \"mamba\"; allowed: llama, qwen2 (the architectures "
            "this engine computes)");
}

TEST(ModelConfigParse, RefusesAbsurdNumbersNamingFieldFoundAndAllowed) {
  const std::vector<std::pair<std::string, json>> bad = {
      {"num_attention_heads", 0},       {"num_attention_heads", -1},
      {"num_attention_heads", 1000000000}, {"num_attention_heads", 3},
      {"num_key_value_heads", 3},       {"hidden_size", "64"},
      {"hidden_size", 64.5},            {"vocab_size", 1e30},
      {"vocab_size", 18446744073709551615u}, {"rope_theta", 0},
      {"max_position_embeddings", 1000000000000}, {"rms_norm_eps", 0},
      {"head_dim", 15},                 {"eos_token_id", 1000},
      {"eos_token_id", -1},             {"eos_token_id", json::array({"x"})},
      {"eos_token_id", std::vector<int>(100000, 1)}, {"rope_scaling", 4},
      {"rope_scaling", {{"rope_type", "longrope"}, {"factor", 2}}},
      {"rope_scaling", {{"rope_type", "linear"}}},
      {"tie_word_embeddings", "yes"},   {"hidden_act", "gelu"},
      {"quantization_config", {{"quant_method", "fp8"}}}};
  for (const auto& [field, value] : bad) {
    const std::string error = Error(With(field, value));
    EXPECT_NE(error.find("found"), std::string::npos) << field << ": " << error;
    EXPECT_NE(error.find("allowed: "), std::string::npos) << field << ": " << error;
  }
  EXPECT_EQ(Error(With("num_attention_heads", -1)),
            "config.json: num_attention_heads: found -1; allowed: a whole number from 1 to 4096");
}

TEST(ModelConfigParse, RefusesBrokenDocuments) {
  for (const char* text : {"", "[]", "{", "{\"a\":1,\"a\":2}", "{\"a\":NaN}", "\xff", "{}"}) {
    EXPECT_FALSE(ParseModelConfig(text, "", "m").ok()) << text;
  }
  EXPECT_FALSE(ParseModelConfig(std::string(1000, '['), "", "m").ok());
  EXPECT_FALSE(ParseModelConfig(Good().dump(), "[]", "m").ok());
  EXPECT_FALSE(ParseModelConfig(Good().dump(), "{\"top_p\":\"high\"}", "m").ok());
}

}  // namespace
}  // namespace penstock::engine
