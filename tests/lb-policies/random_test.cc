#include "tests/lb-policies/policy_testing.h"

namespace penstock::lb {
namespace {

using Picks = std::vector<int>;

TEST(Random, FollowsTheWeights) {
  const Picks picks =
      Spread(*Make("random"), {{.id = 0, .weight = 1}, {.id = 1, .weight = 3}}, 8000);
  EXPECT_NEAR(picks[0], 2000, 200);
}

}  // namespace
}  // namespace penstock::lb
