#include "backend-engine/sched/block_pool.h"

#include <gtest/gtest.h>

#include <map>
#include <random>

namespace penstock::engine {
namespace {

TEST(BlockPool, GivesAllBlocksAskedForOrNone) {
  BlockPool pool(4);
  std::vector<int32_t> table;
  EXPECT_TRUE(pool.Take(1, 3, table));
  EXPECT_FALSE(pool.Take(2, 2, table));
  EXPECT_EQ(table.size(), 3u);
  EXPECT_EQ(pool.free_count(), 1);
}

TEST(BlockPool, HandsTheSameBlocksOutAgainInTheSameOrder) {
  BlockPool pool(4);
  std::vector<int32_t> first;
  ASSERT_TRUE(pool.Take(1, 3, first));
  const std::vector<int32_t> expected = first;
  pool.Give(1, first);
  EXPECT_TRUE(first.empty());
  std::vector<int32_t> second;
  ASSERT_TRUE(pool.Take(2, 3, second));
  EXPECT_EQ(second, expected);
}

TEST(BlockPoolDeathTest, RefusesABlockFromWhoDoesNotOwnIt) {
  BlockPool pool(4);
  std::vector<int32_t> table;
  ASSERT_TRUE(pool.Take(1, 2, table));
  EXPECT_DEATH(pool.Give(2, table), "is of sequence 1, given back by 2");
}

TEST(BlockPool, KeepsEveryBlockInExactlyOnePlace) {
  std::mt19937_64 random(20260101);
  BlockPool pool(50);
  std::map<SequenceId, std::vector<int32_t>> tables;
  for (int i = 0; i < 5000; ++i) {
    const SequenceId id = 1 + random() % 12;
    if (random() % 3 == 0) {
      pool.Give(id, tables[id]);
    } else {
      const int32_t free_before = pool.free_count();
      const auto count = static_cast<int32_t>(random() % 9);
      EXPECT_EQ(pool.Take(id, count, tables[id]), count <= free_before);
    }
    ASSERT_EQ(pool.CheckInvariant(), "");
    size_t held = 0;
    for (const auto& [owner, table] : tables) {
      held += table.size();
      for (const int32_t block : table) ASSERT_EQ(pool.owner(block), owner);
    }
    ASSERT_EQ(static_cast<size_t>(pool.used()), held);
  }
}

}  // namespace
}  // namespace penstock::engine
