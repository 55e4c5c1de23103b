#include "tests/lb-policies/policy_testing.h"

namespace penstock::lb {
namespace {

using Picks = std::vector<int>;

TEST(LeastRequest, PrefersFewerRequestsInFlightPerWeight) {
  auto policy = Make("least_request");
  EXPECT_EQ(Favourite(*policy, {{.id = 10, .inflight = 2}, {.id = 20, .inflight = 1}}), 20u);
  // 7 requests on weight 4 is lighter than 2 requests on weight 1.
  EXPECT_EQ(Favourite(*policy, {{.id = 10, .weight = 1, .inflight = 2},
                                {.id = 20, .weight = 4, .inflight = 7}}),
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
  for (BackendId id = 0; id < 20; ++id)
    candidates.push_back({.id = id, .inflight = id == 0 ? 0.f : 5.f});
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

}  // namespace
}  // namespace penstock::lb
