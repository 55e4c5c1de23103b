#include "backend-engine/exec/decode_plan.h"

#include <gtest/gtest.h>

namespace penstock::engine {
namespace {

TEST(DecodeBuckets, HoldEveryBatchWithLittlePadding) {
  for (const int32_t most : {1, 2, 3, 7, 64, 100, 256, 300, 1000, 4096, 65535}) {
    const auto buckets = DecodeBuckets(most);
    EXPECT_TRUE(std::is_sorted(buckets.begin(), buckets.end()));
    EXPECT_EQ(buckets.back(), most);
    for (int32_t n = 1; n <= most; ++n) {
      const int32_t bucket = BucketFor(buckets, n);
      ASSERT_GE(bucket, n);
      ASSERT_LE(bucket, n < 8 ? 2 * n : n + std::max(63, n / 8));
    }
    EXPECT_EQ(BucketFor(buckets, most + 1), 0);
    EXPECT_LE(buckets.size(), most <= 1000 ? 40u : 90u);
  }
  EXPECT_EQ(DecodeBuckets(20), (std::vector<int32_t>{1, 2, 4, 8, 16, 20}));
  EXPECT_EQ(BucketFor({}, 1), 0);
}

TEST(DecodeSplits, KeepAllMultiprocessorsReadingAndNoneForNothing) {
  // One sequence of 8 KV heads on 132 multiprocessors, four blocks on each.
  EXPECT_EQ(DecodeSplits(1, 8, 132, 8192), 66);
  EXPECT_EQ(DecodeSplits(1, 1, 132, 8192), kSplitsMax);  // As many as are joined.
  EXPECT_EQ(DecodeSplits(8, 8, 132, 8192), 9);
  EXPECT_EQ(DecodeSplits(66, 8, 132, 8192), 1);
  EXPECT_EQ(DecodeSplits(1000, 8, 132, 8192), 1);
  // Short contexts are not cut into less than is worth joining.
  EXPECT_EQ(DecodeSplits(1, 8, 132, 128), 2);
  EXPECT_EQ(DecodeSplits(1, 8, 132, 1), 1);
  EXPECT_EQ(DecodeSplits(0, 8, 132, 8192), 66);
}

TEST(DecodeSplits, PartialResultsOfAnyBatchFitTheirMemory) {
  for (const int32_t most : {1, 5, 64, 256}) {
    const int64_t memory = PartialsMax(most, 4, 132, 4096);
    for (int32_t n = 1; n <= most; ++n) EXPECT_LE(n * DecodeSplits(n, 4, 132, 4096), memory);
  }
}

}  // namespace
}  // namespace penstock::engine
