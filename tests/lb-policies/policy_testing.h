// What the tests of the policies share.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "lb-policies/choice.h"
#include "lb-policies/policy.h"

namespace penstock::lb {

inline std::unique_ptr<Policy> Make(std::string_view name, const Params& params = {}) {
  auto policy = MakePolicy(name, params);
  EXPECT_TRUE(policy.ok()) << policy.status().ToString();
  return policy.ok() ? *std::move(policy) : nullptr;
}

// How often each candidate is picked in `count` picks of the same candidates.
inline std::vector<int> Spread(Policy& policy, const std::vector<Candidate>& candidates, int count,
                               uint64_t seed = 1) {
  Dice dice(seed);
  std::vector<int> picks(candidates.size(), 0);
  for (int i = 0; i < count; ++i) {
    const auto index = policy.Pick({.random = dice.Next()}, candidates, {});
    EXPECT_TRUE(index.has_value() && *index < candidates.size());
    ++picks[index.value_or(0)];
  }
  return picks;
}

// The only candidate that is ever picked; fails if there are several.
inline BackendId Favourite(Policy& policy, const std::vector<Candidate>& candidates) {
  const std::vector<int> picks = Spread(policy, candidates, 200);
  for (size_t i = 0; i < picks.size(); ++i) {
    if (picks[i] == 200) return candidates[i].id;
  }
  ADD_FAILURE() << "no candidate was picked every time";
  return 0;
}

}  // namespace penstock::lb
