#include "config/show.h"

#include <gtest/gtest.h>

#include "config/parse.h"

namespace penstock::config {
namespace {

Config Read(std::string_view text) {
  const ParseResult result = Parse("version: v1\n" + std::string(text), "p");
  EXPECT_TRUE(result.ok()) << result.Messages();
  return result.ok() ? *result.config : Config{};
}

std::vector<std::string> Changes(std::string_view before, std::string_view after) {
  std::vector<std::string> lines;
  for (const Change& change : Diff(Read(before), Read(after))) {
    lines.push_back(change.path + ": " + change.before + " -> " + change.after);
  }
  return lines;
}

using Lines = std::vector<std::string>;

TEST(Show, WhatItPrintsMeansTheSame) {
  const Config config =
      *LoadFile(std::string(PENSTOCK_SOURCE_DIR) + "/config/quickstart.yaml").config;
  const std::string shown = Show(config);
  const ParseResult again = Parse(shown, "shown");
  ASSERT_TRUE(again.ok()) << again.Messages() << shown;
  EXPECT_TRUE(Diff(config, *again.config).empty());
  EXPECT_EQ(Show(*again.config), shown);
}

TEST(Show, QuotesWhatYamlWouldTakeForSomethingElse) {
  const std::string shown =
      Show(Read("pools: [{name: \"1\", models: [\"no\", \"a b\", plain/7b:q4], "
                "backends: [\"[::1]:1\"]}]\nobservability: {access_log: \"off\"}\n"));
  for (const char* line : {"name: \"1\"", "name: \"no\"", "name: \"a b\"", "name: plain/7b:q4",
                           "address: \"[::1]:1\"", "access_log: \"off\""}) {
    EXPECT_NE(shown.find(line), std::string::npos) << line << "\n" << shown;
  }
}

TEST(Show, NeverPrintsASecret) {
  Config config = Read("pools: [{name: a, backends: [\"a:1\"]}]\n");
  config.pools[0].auth = {.mode = AuthMode::kReplace, .key = "sk-live", .keys = {"one", "two"}};
  const std::string shown = Show(config);
  for (const char* secret : {"sk-live", "one", "two"}) {
    EXPECT_EQ(shown.find(secret), std::string::npos) << shown;
  }
  EXPECT_NE(shown.find("key: \"***\""), std::string::npos);
  EXPECT_NE(shown.find("keys_file: \"*** (2 keys)\""), std::string::npos);
}

TEST(Diff, TheSameFileInOtherWordsIsNoDifference) {
  EXPECT_EQ(Changes("pools: [{name: a, backends: [\"a:1\"]}]\n",
                    "defaults: {timeouts: {connect: 1000ms}}\n"
                    "pools: [{name: a, backends: [{address: \"a:1\", weight: 1.0}]}]\n"),
            Lines{});
}

TEST(Diff, NamesWhatChangedByTheNamesInTheFile) {
  EXPECT_EQ(
      Changes(
          "pools: [{name: a, backends: [\"a:1\", {name: b, address: \"b:1\"}]}]\n",
          "pools: [{name: a, backends: [{name: b, address: \"b:2\"}], retry: {attempts: 0}}]\n"),
      (Lines{"pools[a].backends[b].address: b:1 -> b:2", "pools[a].retry.attempts: 1 -> 0",
             "pools[a].backends[a:1].address: a:1 -> ",
             "pools[a].backends[a:1].max_requests: 1024 -> ",
             "pools[a].backends[a:1].name: a:1 -> ", "pools[a].backends[a:1].weight: 1 -> "}));
}

TEST(Diff, TheOrderOfRoutesMatters) {
  const std::string pool = "pools: [{name: a, backends: [\"a:1\"]}]\n";
  EXPECT_EQ(Changes(pool + "routes: [{name: x, pool: a, match: {path: /x}}, {name: y, pool: a}]\n",
                    pool + "routes: [{name: y, pool: a}, {name: x, pool: a, match: {path: /x}}]\n"),
            Lines{"routes: x, y -> y, x"});
}

TEST(Diff, TellsThatASecretChangedAndNotTheSecret) {
  Config before = Read("pools: [{name: a, backends: [\"a:1\"]}]\n");
  before.pools[0].auth = {.mode = AuthMode::kReplace, .key = "old"};
  Config after = before;
  after.pools[0].auth.key = "new";
  const std::vector<Change> changes = Diff(before, after);
  ASSERT_EQ(changes.size(), 1u);
  EXPECT_EQ(changes[0].path, "pools[a].auth.key");
  EXPECT_EQ(changes[0].after, "*** (another)");
}

}  // namespace
}  // namespace penstock::config
