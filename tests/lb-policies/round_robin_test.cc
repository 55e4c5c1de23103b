#include <set>

#include "tests/lb-policies/policy_testing.h"

namespace penstock::lb {
namespace {

using Picks = std::vector<int>;

TEST(RoundRobin, TakesEachInTurn) {
  auto policy = Make("round_robin");
  EXPECT_EQ(Spread(*policy, {{.id = 3}, {.id = 5}, {.id = 9}}, 300), (Picks{100, 100, 100}));
}

TEST(RoundRobin, KeepsItsOrderWhenABackendIsLeftOut) {
  auto policy = Make("round_robin");
  const auto pick = [&](const std::vector<Candidate>& candidates) {
    return candidates[*policy->Pick({.random = 0}, candidates, {})].id;
  };
  const std::vector<Candidate> all = {{.id = 0}, {.id = 1}, {.id = 2}};
  const BackendId first = pick(all);
  EXPECT_EQ(pick(all), (first + 1) % 3);
  const BackendId next = (first + 2) % 3;
  std::vector<Candidate> without_next = all;
  without_next.erase(without_next.begin() + next);
  EXPECT_EQ(pick(without_next), first) << "the one whose turn it was is left out";
  EXPECT_EQ(pick(all), (first + 1) % 3);
}

TEST(RoundRobin, TurnsFollowTheWeights) {
  const Picks picks = Spread(
      *Make("round_robin"),
      {{.id = 0, .weight = 1}, {.id = 1, .weight = 3}, {.id = 2, .weight = 4, .slow_start = 0.5f}},
      6000);
  EXPECT_NEAR(picks[0], 1000, 120);
  EXPECT_NEAR(picks[1], 3000, 150);
  EXPECT_NEAR(picks[2], 2000, 150);
}

TEST(RoundRobin, WorkersDoNotAllBeginWithTheSameBackend) {
  std::set<size_t> firsts;
  Dice dice(1);
  for (int i = 0; i < 50; ++i) {
    const std::vector<Candidate> candidates = {{.id = 0}, {.id = 1}, {.id = 2}};
    firsts.insert(*Make("round_robin")->Pick({.random = dice.Next()}, candidates, {}));
  }
  EXPECT_EQ(firsts.size(), 3u);
}

}  // namespace
}  // namespace penstock::lb
