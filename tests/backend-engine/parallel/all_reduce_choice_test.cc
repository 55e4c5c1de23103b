#include "backend-engine/parallel/all_reduce_choice.h"

#include <gtest/gtest.h>

namespace penstock::engine {
namespace {

AllReduceTable Measured() {
  AllReduceTable table;
  table.Add(8 << 10, AllReduceWay::kOneShot, 2.5);
  table.Add(8 << 10, AllReduceWay::kTwoShot, 4.0);
  table.Add(8 << 10, AllReduceWay::kNccl, 6.7);
  table.Add(1 << 20, AllReduceWay::kOneShot, 12.0);
  table.Add(1 << 20, AllReduceWay::kTwoShot, 5.9);
  table.Add(1 << 20, AllReduceWay::kNccl, 14.3);
  table.Add(64 << 20, AllReduceWay::kOneShot, 900.0);
  table.Add(64 << 20, AllReduceWay::kTwoShot, 250.0);
  table.Add(64 << 20, AllReduceWay::kNccl, 246.0);
  return table;
}

TEST(AllReduceTable, ChoosesTheFastestAtTheNextMeasuredSize) {
  const AllReduceTable table = Measured();
  EXPECT_EQ(table.Best(16), AllReduceWay::kOneShot);
  EXPECT_EQ(table.Best(8 << 10), AllReduceWay::kOneShot);
  EXPECT_EQ(table.Best((8 << 10) + 2), AllReduceWay::kTwoShot);
  EXPECT_EQ(table.Best(1 << 20), AllReduceWay::kTwoShot);
  EXPECT_EQ(table.Best(5 << 20), AllReduceWay::kNccl);
  EXPECT_EQ(table.Best(int64_t{1} << 40), AllReduceWay::kNccl);
}

TEST(AllReduceTable, WithoutMeasurementsOrBetweenEqualsTheSimplestIsTaken) {
  EXPECT_EQ(AllReduceTable().Best(1 << 20), AllReduceWay::kOneShot);
  AllReduceTable table;
  table.Add(1024, AllReduceWay::kOneShot, 0);
  table.Add(1024, AllReduceWay::kTwoShot, 0);
  EXPECT_EQ(table.Best(1024), AllReduceWay::kOneShot);
}

TEST(AllReduceTable, TellsWhatWasMeasuredAndChosen) {
  const std::string text = Measured().Text();
  EXPECT_EQ(text.substr(0, text.find('\n')),
            "8 KiB: one_shot 2.5, two_shot 4.0, nccl 6.7 us -> one_shot");
}

}  // namespace
}  // namespace penstock::engine
