#include "backend-engine/model/rope.h"

#include <gtest/gtest.h>

#include <cmath>

namespace penstock::engine {
namespace {

ModelConfig Config(int64_t head_dim, double theta, RopeKind kind) {
  ModelConfig config;
  config.head_dim = head_dim;
  config.max_positions = 4096;
  config.rope.theta = theta;
  config.rope.kind = kind;
  return config;
}

TEST(Rope, DefaultFrequenciesFallGeometrically) {
  const auto frequencies = RopeFrequencies(Config(8, 10000, RopeKind::kDefault), 1);
  ASSERT_EQ(frequencies.size(), 4u);
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_FLOAT_EQ(frequencies[i], static_cast<float>(std::pow(10.0, -static_cast<double>(i))));
  }
}

TEST(Rope, LinearDividesEveryFrequency) {
  ModelConfig config = Config(64, 10000, RopeKind::kLinear);
  config.rope.factor = 4;
  const auto plain = RopeFrequencies(Config(64, 10000, RopeKind::kDefault), 1);
  const auto scaled = RopeFrequencies(config, 1);
  for (size_t i = 0; i < plain.size(); ++i) EXPECT_FLOAT_EQ(scaled[i], plain[i] / 4);
}

TEST(Rope, DynamicIsTheDefaultUntilTheOriginalLengthAndGrowsPastIt) {
  ModelConfig config = Config(64, 10000, RopeKind::kDynamic);
  config.rope.factor = 2;
  const auto plain = RopeFrequencies(Config(64, 10000, RopeKind::kDefault), 1);
  EXPECT_EQ(RopeFrequencies(config, 4096), plain);
  const auto longer = RopeFrequencies(config, 8192);
  // base * (2 * 2 - 1)^(64/62)
  const double base = 10000 * std::pow(3.0, 64.0 / 62.0);
  EXPECT_FLOAT_EQ(longer[10], static_cast<float>(std::pow(base, -20.0 / 64.0)));
}

TEST(Rope, Llama3KeepsShortWavesStretchesLongOnesAndBlendsBetween) {
  ModelConfig config = Config(128, 500000, RopeKind::kLlama3);
  config.rope.factor = 8;
  config.rope.original_max_positions = 8192;
  const auto plain = RopeFrequencies(Config(128, 500000, RopeKind::kDefault), 1);
  const auto scaled = RopeFrequencies(config, 1);
  EXPECT_EQ(scaled[0], plain[0]);
  EXPECT_FLOAT_EQ(scaled[63], plain[63] / 8);
  size_t blended = 0;
  for (size_t i = 0; i < 64; ++i) {
    const double wave = 2 * M_PI / plain[i];
    const double ratio = scaled[i] / plain[i];
    if (wave < 8192.0 / 4) {
      EXPECT_EQ(ratio, 1.0);
    }
    if (wave > 8192.0) {
      EXPECT_NEAR(ratio, 0.125, 1e-6);
    }
    if (ratio < 0.999 && ratio > 0.126) ++blended;
  }
  EXPECT_GT(blended, 3u);
}

TEST(Rope, YarnCutsWhereTheFormulaSays) {
  ModelConfig config = Config(64, 10000, RopeKind::kYarn);
  config.rope.factor = 40;
  config.rope.original_max_positions = 4096;
  const auto plain = RopeFrequencies(Config(64, 10000, RopeKind::kDefault), 1);
  const auto scaled = RopeFrequencies(config, 1);
  // Low 10, high 23 for these numbers.
  for (size_t i = 0; i <= 10; ++i) EXPECT_FLOAT_EQ(scaled[i], plain[i]);
  for (size_t i = 23; i < 32; ++i) EXPECT_FLOAT_EQ(scaled[i], plain[i] / 40);
  EXPECT_LT(scaled[16], plain[16]);
  EXPECT_GT(scaled[16], plain[16] / 40);
}

TEST(Rope, YarnsFactorIsTheFilesOrTheFormulas) {
  RopeConfig rope{.kind = RopeKind::kYarn, .factor = 4};
  EXPECT_NEAR(RopeFactor(rope), 1.13863, 1e-5);
  rope.attention_factor = 1.5;
  EXPECT_EQ(RopeFactor(rope), 1.5);
  rope.kind = RopeKind::kLlama3;
  EXPECT_EQ(RopeFactor(rope), 1.0);
}

TEST(Rope, TablesHoldCosineAndSineOfPositionTimesFrequency) {
  const ModelConfig config = Config(8, 10000, RopeKind::kDefault);
  const RopeTable table = MakeRopeTable(config, 300);
  ASSERT_EQ(table.cosines.size(), 300u * 4);
  EXPECT_EQ(table.cosines[0], 1.0f);
  EXPECT_EQ(table.sines[0], 0.0f);
  EXPECT_NEAR(table.cosines[299 * 4], std::cos(299.0), 1e-6);
  EXPECT_NEAR(table.sines[299 * 4 + 1], std::sin(29.9), 1e-5);
}

}  // namespace
}  // namespace penstock::engine
