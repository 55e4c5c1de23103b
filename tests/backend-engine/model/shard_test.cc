#include "backend-engine/model/shard.h"

#include <gtest/gtest.h>

namespace penstock::engine {
namespace {

ModelConfig Config(int64_t heads, int64_t kv_heads, int64_t inner, int64_t vocab) {
  ModelConfig config;
  config.head_count = heads;
  config.kv_head_count = kv_heads;
  config.head_dim = 4;
  config.intermediate_size = inner;
  config.vocab_size = vocab;
  return config;
}

TEST(Shard, PartsCoverEverythingOnce) {
  for (const int size : {1, 2, 4}) {
    const ModelConfig config = Config(8, 4, 75, 101);
    int64_t heads = 0, kv_heads = 0, inner = 0, vocab = 0;
    for (int rank = 0; rank < size; ++rank) {
      Shard shard;
      std::string error;
      ASSERT_TRUE(MakeShard(config, rank, size, shard, error)) << error;
      EXPECT_EQ(shard.heads.first, heads);
      EXPECT_EQ(shard.kv_heads.first, kv_heads);
      EXPECT_EQ(shard.intermediate.first, inner);
      EXPECT_EQ(shard.vocab.first, vocab);
      EXPECT_LE(shard.intermediate.count, shard.intermediate_padded);
      EXPECT_LE(shard.vocab.count, shard.vocab_padded);
      EXPECT_EQ(shard.vocab_padded % 16, 0);
      heads += shard.heads.count;
      kv_heads += shard.kv_heads.count;
      inner += shard.intermediate.count;
      vocab += shard.vocab.count;
    }
    EXPECT_EQ(heads, 8);
    EXPECT_EQ(kv_heads, 4);
    EXPECT_EQ(inner, 75);
    EXPECT_EQ(vocab, 101);
  }
}

TEST(Shard, KeyValueHeadsAreRepeatedWhereRanksExceedThem) {
  const ModelConfig config = Config(8, 2, 64, 64);
  for (int rank = 0; rank < 8; ++rank) {
    Shard shard;
    std::string error;
    ASSERT_TRUE(MakeShard(config, rank, 8, shard, error)) << error;
    EXPECT_EQ(shard.kv_heads.count, 1);
    // Query head h reads key-value head h / 4.
    EXPECT_EQ(shard.kv_heads.first, shard.heads.first / 4);
  }
}

TEST(Shard, SaysWhyAModelCannotBeCut) {
  Shard shard;
  std::string error;
  EXPECT_FALSE(MakeShard(Config(14, 2, 64, 64), 0, 4, shard, error));
  EXPECT_EQ(error,
            "tensor parallel 4: 14 attention heads cannot be cut into 4 equal parts; choose a "
            "divisor of 14");
  EXPECT_FALSE(MakeShard(Config(12, 4, 64, 64), 0, 6, shard, error));
  EXPECT_NE(error.find("4 key-value heads"), std::string::npos);
  ModelConfig odd = Config(4, 2, 64, 64);
  odd.head_dim = 5;
  EXPECT_FALSE(MakeShard(odd, 0, 1, shard, error));
  EXPECT_NE(error.find("head_dim is 5"), std::string::npos);
}

}  // namespace
}  // namespace penstock::engine
