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

using Ways = std::vector<AllReduceWay>;

TEST(WaysFor, RanksOfOneHostSumByTheirOwnKernelsWhereTheyReachEachOther) {
  EXPECT_EQ(WaysFor({{8}, true, true}),
            (Ways{AllReduceWay::kOneShot, AllReduceWay::kTwoShot, AllReduceWay::kNccl}));
  EXPECT_EQ(WaysFor({{4}, true, false}), (Ways{AllReduceWay::kOneShot, AllReduceWay::kTwoShot}));
  EXPECT_EQ(WaysFor({{4}, false, true}), Ways{AllReduceWay::kNccl});  // PCIe without peers.
  EXPECT_TRUE(WaysFor({{4}, false, false}).empty());
}

TEST(WaysFor, SeveralHostsNeedNcclAndMayGoByHosts) {
  EXPECT_EQ(WaysFor({{8, 8}, true, true}),
            (Ways{AllReduceWay::kNccl, AllReduceWay::kHierarchical}));
  // A rank a host has no peers to share the way; unequal hosts have unequal parts.
  EXPECT_EQ(WaysFor({{1, 1, 1}, true, true}), Ways{AllReduceWay::kNccl});
  EXPECT_EQ(WaysFor({{8, 4}, true, true}), Ways{AllReduceWay::kNccl});
  EXPECT_EQ(WaysFor({{8, 8}, false, true}), Ways{AllReduceWay::kNccl});
  EXPECT_TRUE(WaysFor({{8, 8}, true, false}).empty());
}

TEST(AllReduceTable, TakesTheWayByHostsFromWhereItIsMeasuredFaster) {
  AllReduceTable table;
  table.Add(16 << 10, AllReduceWay::kNccl, 30.0);
  table.Add(16 << 10, AllReduceWay::kHierarchical, 55.0);
  table.Add(16 << 20, AllReduceWay::kNccl, 900.0);
  table.Add(16 << 20, AllReduceWay::kHierarchical, 310.0);
  EXPECT_EQ(table.Best(8 << 10), AllReduceWay::kNccl);
  EXPECT_EQ(table.Best(1 << 20), AllReduceWay::kHierarchical);
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

TEST(AllReduceTable, AddedAgainElsewhereItChoosesAlike) {
  AllReduceTable table, copy;
  table.Add(1024, AllReduceWay::kNccl, 5);
  table.Add(1024, AllReduceWay::kHierarchical, 7);
  table.Add(1 << 20, AllReduceWay::kNccl, 90);
  table.Add(1 << 20, AllReduceWay::kHierarchical, 40);
  for (const auto& entry : table.entries()) copy.Add(entry.bytes, entry.way, entry.microseconds);
  EXPECT_EQ(copy.Text(), table.Text());
  EXPECT_EQ(copy.Best(2048), AllReduceWay::kHierarchical);
}

}  // namespace
}  // namespace penstock::engine
