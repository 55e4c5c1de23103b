#include "proxy/policy_file.h"

#include <gtest/gtest.h>

namespace penstock {
namespace {

constexpr std::string_view kPool =
    "version: v1\n"
    "pools:\n"
    "  - name: chat\n"
    "    backends: [\"a:1\"]\n";

std::string Messages(std::string_view more) {
  return ParsePolicyText(std::string(kPool) + std::string(more), "p.yaml").Messages();
}

TEST(PolicyFile, NamesThePlaceOfAnUnknownAlgorithm) {
  EXPECT_EQ(
      Messages("    load_balancing:\n      algorithm: least_requests\n"),
      "p.yaml:6:18: pools[0].load_balancing.algorithm: no policy is named \"least_requests\"; "
      "did you mean \"least_request\"? known: weighted_score, least_request, round_robin, "
      "random\n");
}

TEST(PolicyFile, NamesThePlaceOfASettingOutOfRange) {
  EXPECT_EQ(Messages("    load_balancing: {alpha: -1, beta: 0.4}\n"),
            "p.yaml:5:29: pools[0].load_balancing: alpha: \"-1\" is not a number from 0 to 100\n");
}

TEST(PolicyFile, NamesThePlaceOfASettingThatThePolicyDoesNotHave) {
  EXPECT_EQ(Messages("    load_balancing: {alhpa: 1}\n"),
            "p.yaml:5:29: pools[0].load_balancing: weighted_score has no setting \"alhpa\"; "
            "did you mean \"alpha\"?\n");
}

TEST(PolicyFile, SaysOnceWhatTheDefaultsOfManyPoolsSayWrong) {
  EXPECT_EQ(
      ParsePolicyText(
          "version: v1\n"
          "defaults: {load_balancing: {alpha: x}}\n"
          "pools: [{name: a, backends: [\"a:1\"]}, {name: b, backends: [\"b:1\"], models: [m]}]\n",
          "p.yaml")
          .Messages(),
      "p.yaml:2:36: defaults.load_balancing: alpha: \"x\" is not a number from 0 to 100\n");
}

TEST(PolicyFile, RefusesSettingsThatAreOnlyWrongTogether) {
  EXPECT_EQ(
      Messages("    load_balancing: {alpha: 0, beta: 0}\n"),
      "p.yaml:5:21: pools[0].load_balancing: alpha and beta are both 0, so neither latency nor "
      "queue would count; give one of them a value above 0\n");
}

TEST(PolicyFile, DropsTheSettingsOfDefaultsUnderAnotherAlgorithm) {
  EXPECT_EQ(ParsePolicyText(
                "version: v1\n"
                "defaults: {load_balancing: {alpha: 0.5}}\n"
                "pools: [{name: a, backends: [\"a:1\"], load_balancing: {algorithm: random}}]\n",
                "p.yaml")
                .Messages(),
            "");
}

}  // namespace
}  // namespace penstock
