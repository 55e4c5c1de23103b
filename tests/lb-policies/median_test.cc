#include "lb-policies/median.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <vector>

#include "lb-policies/choice.h"

namespace penstock::lb {
namespace {

float Sorted(std::vector<float> values) {
  std::sort(values.begin(), values.end());
  const size_t half = values.size() / 2;
  return values.size() % 2 == 1 ? values[half] : (values[half] + values[half - 1]) / 2;
}

TEST(Median, IsThatOfTheSortedValuesForEveryLength) {
  for (uint64_t seed = 0; seed < 2000; ++seed) {
    Dice dice(seed);
    std::vector<float> values(1 + seed % kMedianMax);
    const size_t kinds = 1 + dice.Below(100);  // Few kinds: many equal values.
    for (float& value : values) value = static_cast<float>(dice.Below(kinds)) * 0.37f;
    EXPECT_EQ(Median(values), Sorted(values)) << "seed " << seed;
    for (float& value : values) value = dice.Unit() * (dice.Below(5) == 0 ? 1e6f : 1e-3f);
    EXPECT_EQ(Median(values), Sorted(values)) << "seed " << seed;
  }
}

TEST(Median, TakesZeroesAndInfinities) {
  for (const size_t count : {3, 40}) {
    EXPECT_EQ(Median(std::vector<float>(count, -0.0f)), 0);
    std::vector<float> values(count, std::numeric_limits<float>::infinity());
    EXPECT_EQ(Median(values), values[0]);
  }
}

}  // namespace
}  // namespace penstock::lb
