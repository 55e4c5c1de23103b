// round_robin, least_request, random and the registry.
#include <fstream>
#include <set>
#include <sstream>

#include "fmt/format.h"
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
  const Picks picks = Spread(*Make("round_robin"),
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

TEST(LeastRequest, PrefersFewerRequestsInFlightPerWeight) {
  auto policy = Make("least_request");
  EXPECT_EQ(Favourite(*policy, {{.id = 10, .inflight = 2}, {.id = 20, .inflight = 1}}), 20u);
  // 7 requests on weight 4 is lighter than 2 requests on weight 1.
  EXPECT_EQ(Favourite(*policy, {{.id = 10, .weight = 1, .inflight = 2}, {.id = 20, .weight = 4, .inflight = 7}}),
            20u);
}

TEST(LeastRequest, IgnoresWhatEnginesReport) {
  EXPECT_EQ(Favourite(*Make("least_request"),
                      {{.id = 1, .rung = Rung::kPush, .reported_total = 50, .inflight = 0},
                       {.id = 2, .rung = Rung::kPush, .reported_total = 0, .inflight = 1}}),
            1u);
}

TEST(LeastRequest, DrawsTwoOfManyAndTakesTheBetter) {
  std::vector<Candidate> candidates;
  for (BackendId id = 0; id < 20; ++id) candidates.push_back({.id = id, .inflight = id == 0 ? 0.f : 5.f});
  const Picks picks = Spread(*Make("least_request"), candidates, 10'000);
  EXPECT_NEAR(picks[0], 1000, 150) << "drawn in one pair of ten";
  Candidate& last = candidates[19];
  last.inflight = 9;
  EXPECT_EQ(Spread(*Make("least_request"), candidates, 10'000)[19], 0);
}

TEST(LeastRequest, SaysTheTermsItUsed) {
  std::vector<Terms> terms(2);
  const std::vector<Candidate> candidates = {{.id = 0, .weight = 2, .inflight = 3}, {.id = 1}};
  Make("least_request")->Pick({}, candidates, terms);
  EXPECT_FLOAT_EQ(terms[0].score, 2);
  EXPECT_FLOAT_EQ(terms[1].score, 1);
}

TEST(Random, FollowsTheWeights) {
  const Picks picks = Spread(*Make("random"), {{.id = 0, .weight = 1}, {.id = 1, .weight = 3}}, 8000);
  EXPECT_NEAR(picks[0], 2000, 200);
}

TEST(MakePolicy, NamesTheNearestKnownPolicy) {
  EXPECT_EQ(MakePolicy("round-robin", {}).status().message(),
            "no policy is named \"round-robin\"; did you mean \"round_robin\"? known: weighted_score, "
            "least_request, round_robin, random");
  EXPECT_EQ(MakePolicy("maglev", {}).status().message(),
            "no policy is named \"maglev\"; known: weighted_score, least_request, round_robin, random");
}

TEST(MakePolicy, RefusesSettingsOfPoliciesThatHaveNone) {
  for (const char* name : {"least_request", "round_robin", "random"}) {
    EXPECT_EQ(MakePolicy(name, {{"alpha", "1"}}).status().message(),
              fmt::format("{} has no setting \"alpha\"; it has none", name));
  }
}

TEST(LbPoliciesPage, HasARowPerPolicy) {
  std::ifstream file(std::string(PENSTOCK_SOURCE_DIR) + "/docs/lb-policies.md");
  std::stringstream page;
  page << file.rdbuf();
  for (const PolicyInfo& info : Policies()) {
    const size_t row = page.str().find(fmt::format("\n| `{}` |", info.name));
    ASSERT_NE(row, std::string::npos) << info.name << " has no row in docs/lb-policies.md";
    EXPECT_NE(page.str().find(fmt::format("| {} |\n", info.sentence), row), std::string::npos)
        << info.name << ": the last column is its sentence in policies.def";
  }
}

}  // namespace
}  // namespace penstock::lb
