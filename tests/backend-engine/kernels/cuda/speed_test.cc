// The table of speeds of tests/gpu/check, made small on the emulated GPU, whose times are
// told: so that nobody's minutes on a real one go to a table that does not come out.
#include "tests/gpu/speed.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "backend-engine/kernels/cuda/emulated/recording.h"
#include "tests/gpu/random_checkpoint.h"

namespace penstock::engine {
namespace {

ModelConfig SmallModel() {
  return {.architecture = Architecture::kQwen2, .vocab_size = 96, .hidden_size = 64,
          .intermediate_size = 128, .layer_count = 2, .head_count = 4, .kv_head_count = 4,
          .head_dim = 64, .max_positions = 512, .rms_eps = 1e-6, .qkv_bias = true};
}

SpeedSizes SmallSizes() {
  SpeedSizes sizes;
  sizes.copy_bytes = 4096;
  sizes.beyond_caches = 8192;
  sizes.square = 16;
  sizes.products = {{32, 64}};
  sizes.product_tokens = {1, 16};
  sizes.heads = sizes.kv_heads = 2;
  sizes.head_dim = 64;
  sizes.attentions = {{2, 40, 1, 4.0}, {1, 0, 20}};
  sizes.models = {{.name = "small", .config = SmallModel(), .decodes = {{1, 1e12}, {2}},
                   .first_token_at_most = 1000, .prompt_at_most = 1e6}};
  sizes.decode_steps = 3;
  sizes.decode_context = 20;
  sizes.prompt = 48;
  sizes.sums_over = SmallModel();
  sizes.sums_ranks = {2};
  return sizes;
}

nlohmann::json RecordOf(const Report& report) {
  const auto path = std::filesystem::temp_directory_path() /
                    ("penstock-speed-" + std::to_string(::getpid()) + ".json");
  EXPECT_TRUE(report.Write(path));
  std::ifstream file(path);
  nlohmann::json record = nlohmann::json::parse(file);
  std::filesystem::remove(path);
  return record;
}

TEST(Speed, ComesOutWholeWithSharesOfTheCeilingsAndGoals) {
  emulated::SetMilliseconds(20);  // 1 ms each, in graphs of 20.
  Report report;
  MeasureSpeed(SmallSizes(), report);
  emulated::SetMilliseconds(0);
  EXPECT_EQ(report.Failed(), 0);
  const auto record = RecordOf(report);
  std::map<std::string, nlohmann::json> rows;
  for (const auto& row : record["timings"]) rows[row["what"]] = row;

  const auto& copy = rows.at("ceiling: a copy of 0 MiB, read and written");
  EXPECT_NEAR(copy["us"], 1000, 1e-3);
  EXPECT_NEAR(copy["of_ceiling"], 1, 1e-6);
  EXPECT_EQ(copy["turns_us"].size(), 5u);
  // 2 KiB of weights in the time in which 8 KiB were copied.
  EXPECT_NEAR(rows.at("gemv [32, 64] x 1")["of_ceiling"], 0.5, 1e-6);
  EXPECT_TRUE(rows.contains("cublaslt [32, 64] x 16"));
  EXPECT_FALSE(rows.contains("gemv [32, 64] x 16"));  // More tokens than it takes.
  EXPECT_EQ(rows.at("prefill attention 1 x 20")["unit"], "TFLOP/s");

  int missed = 0;
  for (const auto& [what, row] : rows) {
    if (what.starts_with("decode attention 2 x 40")) {
      EXPECT_EQ(row["goal"], ">= 4");
      missed += row["met"] == false ? 1 : 0;
    }
  }
  EXPECT_EQ(missed, 1);
  const auto& decode = rows.at("small: decode, batch 1, context 20");
  EXPECT_EQ(decode["met"], false);
  EXPECT_EQ(decode["turns_us"].size(), 3u);
  EXPECT_GT(decode["of_ceiling"], 0);
  EXPECT_GT(decode["rate"], 0);
  EXPECT_TRUE(rows.contains("small: decode, batch 2, context 20"));
  EXPECT_EQ(rows.at("small: decode, batch 1, context 20: of it, the GPU had no work")["unit"], "%");
  EXPECT_EQ(rows.at("small: 0 GB in memory to the first token")["met"], true);
  EXPECT_EQ(rows.at("small: prompt of 48 tokens")["met"], true);
  int sums = 0;
  for (const auto& [what, row] : rows) {
    sums += what.find("bytes over 2 ranks on one GPU, one_shot") != std::string::npos ? 1 : 0;
  }
  EXPECT_GT(sums, 0);
}

TEST(Speed, OfTheTableHasEveryGoal) {
  const SpeedSizes sizes = SizesForTheTable();
  ASSERT_EQ(sizes.models.size(), 2u);
  const auto& llama = sizes.models[0];
  EXPECT_EQ(llama.decodes.front().at_least, 240);
  EXPECT_EQ(llama.decodes.back().batch, 256);
  EXPECT_EQ(llama.decodes.back().at_least, 18000);
  EXPECT_EQ(sizes.models[1].decodes.front().at_least, 245);
  // 7.5 G of 8.03 G numbers; the embedding's are looked up.
  EXPECT_NEAR(static_cast<double>(WeightsOfAStep(llama.config)), 7.5e9, 0.02e9);
}

TEST(RandomCheckpoint, HasEveryTensorInAPlaceOfItsOwn) {
  const RandomCheckpoint checkpoint(SmallModel());
  ASSERT_TRUE(checkpoint.whole());
  const auto source = checkpoint.source();
  const auto q = source("model.layers.1.self_attn.q_proj.weight");
  const auto k = source("model.layers.1.self_attn.k_proj.weight");
  ASSERT_TRUE(q && k);
  EXPECT_EQ(q->shape, (std::vector<int64_t>{256, 64}));
  EXPECT_EQ(q->bytes.size(), 256u * 64 * 2);
  EXPECT_GE(k->bytes.data(), q->bytes.data() + q->bytes.size());
  EXPECT_FALSE(source("model.layers.2.self_attn.q_proj.weight"));
}

TEST(Report, WritesWhatIsNoNumberAsNull) {
  Report report;
  report.Fact("gpu", "a \"name\"\n");
  report.Add({"op", "shape", std::nan(""), 1});
  report.Time({.what = "never", .microseconds = 1, .rate = std::nan(""), .unit = "s", .at_most = 1});
  const auto record = RecordOf(report);
  EXPECT_EQ(record["gpu"], "a \"name\" ");
  EXPECT_TRUE(record["checks"][0]["error"].is_null());
  EXPECT_EQ(record["failed"], 1);
  EXPECT_EQ(record["timings"][0]["met"], false);
  EXPECT_FALSE(record["timings"][0].contains("of_ceiling"));
}

}  // namespace
}  // namespace penstock::engine
