#include <fstream>
#include <sstream>

#include "fmt/format.h"
#include "tests/lb-policies/policy_testing.h"

namespace penstock::lb {
namespace {

TEST(MakePolicy, NamesTheNearestKnownPolicy) {
  EXPECT_EQ(
      MakePolicy("round-robin", {}).status().message(),
      "no policy is named \"round-robin\"; did you mean \"round_robin\"? known: weighted_score, "
      "least_request, round_robin, random");
  EXPECT_EQ(
      MakePolicy("maglev", {}).status().message(),
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
