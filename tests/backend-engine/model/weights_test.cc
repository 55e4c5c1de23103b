#include "backend-engine/model/weights.h"

#include <gtest/gtest.h>

#include "tests/backend-engine/model/random_model.h"

namespace penstock::engine {
namespace {

ModelConfig LargerConfig() {
  ModelConfig config = SmallConfig();
  config.vocab_size = 512;
  config.hidden_size = 128;
  config.intermediate_size = 256;
  config.head_dim = 32;
  return config;
}

bool Load(const RandomModel& model, int rank, int size, std::optional<DType> dtype,
          Weights& weights, std::string& error, const LoadProgress& progress = {}) {
  Shard shard;
  EXPECT_TRUE(MakeShard(model.config(), rank, size, shard, error)) << error;
  return LoadWeights(model.config(), shard, model.source(), dtype, progress, weights, error);
}

TEST(Weights, EachRankHoldsItsRowsAndColumns) {
  const RandomModel model(SmallConfig());
  const ModelConfig& config = model.config();
  const std::vector<float> k = model.Numbers("model.layers.1.self_attn.k_proj.weight");
  const std::vector<float> up = model.Numbers("model.layers.1.mlp.up_proj.weight");
  const std::vector<float> down = model.Numbers("model.layers.1.mlp.down_proj.weight");
  const std::vector<float> bias = model.Numbers("model.layers.1.self_attn.k_proj.bias");
  for (int rank = 0; rank < 2; ++rank) {
    Weights weights;
    std::string error;
    ASSERT_TRUE(Load(model, rank, 2, std::nullopt, weights, error)) << error;
    const LayerWeights& layer = weights.layers[1];
    // Two query heads, then one key head of ten rows.
    EXPECT_EQ(layer.qkv.rows, (2 + 1 + 1) * 10);
    EXPECT_EQ(ElementAt(layer.qkv, 20 + 3, 7),
              k[static_cast<size_t>((rank * 10 + 3) * config.hidden_size + 7)]);
    EXPECT_EQ(layer.qkv_bias[20 + 3], bias[static_cast<size_t>(rank * 10 + 3)]);
    // 75 inner columns are cut into 38 and 37 and one of zeros.
    EXPECT_EQ(layer.gate_up.rows, 2 * 38);
    EXPECT_EQ(ElementAt(layer.gate_up, 38 + 5, 9),
              up[static_cast<size_t>((rank * 38 + 5) * config.hidden_size + 9)]);
    EXPECT_EQ(ElementAt(layer.down, 4, 36), down[static_cast<size_t>(4 * 75 + rank * 38 + 36)]);
    if (rank == 1) {
      EXPECT_EQ(ElementAt(layer.down, 4, 37), 0.0f);
    }
  }
}

TEST(Weights, ARankOfFourHoldsAQuarterOfEveryMatrix) {
  const RandomModel model(LargerConfig());
  Weights whole;
  std::string error;
  ASSERT_TRUE(Load(model, 0, 1, std::nullopt, whole, error)) << error;
  for (int rank = 0; rank < 4; ++rank) {
    Weights part;
    ASSERT_TRUE(Load(model, rank, 4, std::nullopt, part, error)) << error;
    // Two key-value heads are held twice each; norms are whole.
    EXPECT_LT(static_cast<double>(part.bytes), 0.29 * static_cast<double>(whole.bytes));
  }
}

TEST(Weights, TiedEmbeddingsAreHeldOnce) {
  ModelConfig config = LargerConfig();
  std::string error;
  Weights tied;
  ASSERT_TRUE(Load(RandomModel(config), 0, 1, std::nullopt, tied, error)) << error;
  EXPECT_EQ(tied.lm_head.data, tied.embeddings.data);
  config.tied_embeddings = false;
  Weights untied;
  ASSERT_TRUE(Load(RandomModel(config), 0, 1, std::nullopt, untied, error)) << error;
  EXPECT_NE(untied.lm_head.data, untied.embeddings.data);
  EXPECT_EQ(untied.bytes - tied.bytes, config.vocab_size * config.hidden_size * 2);
}

TEST(Weights, TheFormatInMemoryIsTheStoredOneUnlessAsked) {
  const RandomModel model(SmallConfig(), DType::kF16);
  std::string error;
  Weights stored;
  ASSERT_TRUE(Load(model, 0, 1, std::nullopt, stored, error)) << error;
  EXPECT_EQ(stored.layers[0].down.dtype, DType::kF16);
  Weights wide;
  ASSERT_TRUE(Load(model, 0, 1, DType::kF32, wide, error)) << error;
  EXPECT_EQ(wide.layers[0].down.dtype, DType::kF32);
  EXPECT_EQ(ElementAt(wide.layers[0].down, 3, 2), ElementAt(stored.layers[0].down, 3, 2));
}

TEST(Weights, AMissingTensorIsNamedWithItsShape) {
  RandomModel model(SmallConfig());
  model.Remove("model.layers.1.mlp.up_proj.weight");
  Weights weights;
  std::string error;
  EXPECT_FALSE(Load(model, 0, 1, std::nullopt, weights, error));
  EXPECT_EQ(error, "tensor model.layers.1.mlp.up_proj.weight is missing; expected it with shape "
                   "[75, 52]");
}

TEST(Weights, AMisshapenTensorIsNamedWithBothShapes) {
  RandomModel model(SmallConfig());
  model.Reshape("model.layers.0.self_attn.q_proj.bias", {8, 5});
  Weights weights;
  std::string error;
  EXPECT_FALSE(Load(model, 0, 1, std::nullopt, weights, error));
  EXPECT_EQ(error, "tensor model.layers.0.self_attn.q_proj.bias has shape [8, 5], expected [40] "
                   "by config.json");
}

TEST(Weights, ATensorWithTooFewBytesIsRefused) {
  const RandomModel model(SmallConfig());
  const TensorSource whole = model.source();
  const TensorSource truncated = [&whole](std::string_view name) {
    auto view = whole(name);
    if (name == "model.norm.weight") view->bytes = view->bytes.first(view->bytes.size() - 1);
    return view;
  };
  Shard shard;
  Weights weights;
  std::string error;
  ASSERT_TRUE(MakeShard(model.config(), 0, 1, shard, error));
  EXPECT_FALSE(LoadWeights(model.config(), shard, truncated, std::nullopt, {}, weights, error));
  EXPECT_EQ(error, "tensor model.norm.weight has 103 bytes, expected 104 for its shape");
}

TEST(Weights, ProgressRisesToTheTotal) {
  const RandomModel model(SmallConfig());
  int64_t last = 0;
  int64_t whole = 0;
  Weights weights;
  std::string error;
  ASSERT_TRUE(Load(model, 1, 2, std::nullopt, weights, error, [&](int64_t done, int64_t total) {
    EXPECT_GT(done, last);
    last = done;
    whole = total;
  })) << error;
  EXPECT_EQ(last, whole);
  EXPECT_GT(whole, 0);
}

}  // namespace
}  // namespace penstock::engine
