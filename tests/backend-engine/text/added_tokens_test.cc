#include "backend-engine/text/added_tokens.h"

#include <gtest/gtest.h>

namespace penstock::engine {
namespace {

AddedTokenFinder Finder(const std::vector<AddedToken>& tokens) {
  AddedTokenFinder finder;
  for (const AddedToken& token : tokens) finder.Add(token, token.content);
  return finder;
}

// "text[7]text": what is in brackets was found as that token.
std::string Shown(const AddedTokenFinder& finder, std::string_view text, bool allow_special = true) {
  std::string out;
  for (const auto& part : finder.Split(text, allow_special)) {
    out += part.id < 0 ? std::string(part.text) : "[" + std::to_string(part.id) + "]";
  }
  return out;
}

TEST(AddedTokens, TheLongestAtTheLeftmostPlaceWins) {
  const auto finder = Finder({{.id = 1, .content = "<a>"}, {.id = 2, .content = "<a><b>"}});
  EXPECT_EQ(Shown(finder, "x<a><b>y<a>z<a"), "x[2]y[1]z<a");
  EXPECT_EQ(Shown(finder, ""), "");
}

TEST(AddedTokens, TheLongestAtAPlaceIsToldWhateverItsFlags) {
  const auto finder = Finder({{.id = 1, .content = "<a>", .special = true},
                              {.id = 2, .content = "<a><b>", .special = true}});
  EXPECT_EQ(finder.LongestAt("x<a><b>", 1).id, 2);
  EXPECT_EQ(finder.LongestAt("x<a><b>", 1).text, "<a><b>");
  EXPECT_EQ(finder.LongestAt("x<a><b", 1).text, "<a>");
  EXPECT_EQ(finder.LongestAt("x<a><b>", 0).id, -1);
  EXPECT_EQ(finder.LongestAt("x<a", 1).text, "");
}

TEST(AddedTokens, SpecialOnesNeedPermission) {
  const auto finder = Finder({{.id = 1, .content = "<s>", .special = true}, {.id = 2, .content = "t"}});
  EXPECT_EQ(Shown(finder, "<s>t", true), "[1][2]");
  EXPECT_EQ(Shown(finder, "<s>t", false), "<s>[2]");
}

TEST(AddedTokens, SwallowTheSpaceTheyAskFor) {
  const auto finder = Finder({{.id = 1, .content = "L", .lstrip = true}, {.id = 2, .content = "R", .rstrip = true}});
  EXPECT_EQ(Shown(finder, "a \u3000L b R \n c"), "a[1] b [2]c");
  EXPECT_EQ(Shown(finder, "R L"), "[2][1]");
}

TEST(AddedTokens, SingleWordsStandAlone) {
  const auto finder = Finder({{.id = 1, .content = "we", .single_word = true}});
  EXPECT_EQ(Shown(finder, "we, owe wet we_ éwe we"), "[1], owe wet we_ éwe [1]");
}

}  // namespace
}  // namespace penstock::engine
