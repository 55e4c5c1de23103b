#include "backend-engine/text/regex.h"

#include <gtest/gtest.h>

namespace penstock::engine {
namespace {

std::string FirstMatch(std::string_view pattern, std::string_view text, size_t from = 0) {
  const auto regex = Regex::Compile(pattern);
  if (!regex.ok()) return "bad: " + std::string(regex.status().message());
  const auto match = regex->Find(text, from);
  if (!match.ok()) return "gave up";
  return match->has_value() ? std::string(text.substr((*match)->begin, (*match)->end - (*match)->begin))
                            : "none";
}

TEST(Regex, MeansWhatOnigurumaMeans) {
  EXPECT_EQ(FirstMatch(R"(\s+)", "a\u0085\u3000b"), "\u0085\u3000");
  EXPECT_EQ(FirstMatch(R"(\s)", "\u180e"), "none");
  EXPECT_EQ(FirstMatch(R"([^\s]+)", " \u180ex "), "\u180ex");
  EXPECT_EQ(FirstMatch(R"(\S+)", " \u180ex "), "\u180ex");
  EXPECT_EQ(FirstMatch("a$", "a\nb"), "a");
  EXPECT_EQ(FirstMatch("^b", "a\nb"), "b");
  EXPECT_EQ(FirstMatch(R"(\h+)", "xyz1aF"), "1aF");
  EXPECT_EQ(FirstMatch("(?i:'s)", "it'\u017F"), "'\u017F");
  EXPECT_EQ(FirstMatch(R"(\p{N}{1,3})", "a\u0663\u0664\u0665\u0666"), "\u0663\u0664\u0665");
}

TEST(Regex, LooksAheadToTheEndOfTheSubjectOnly) {
  EXPECT_EQ(FirstMatch(R"(\s+(?!\S))", "  x"), " ");
  EXPECT_EQ(FirstMatch(R"(\s+(?!\S))", "  "), "  ");
}

TEST(Regex, PassesOverEmptyMatches) {
  EXPECT_EQ(FirstMatch("x*", "éx"), "x");
  EXPECT_EQ(FirstMatch("x*", "ab"), "none");
  EXPECT_EQ(FirstMatch("a", "ab", 1), "none");
}

TEST(Regex, RefusesWhatCannotBeCompiledOrIsTooLong) {
  EXPECT_EQ(FirstMatch("(a", "x").substr(0, 4), "bad:");
  EXPECT_EQ(FirstMatch(R"(\C)", "x").substr(0, 4), "bad:");
  EXPECT_EQ(FirstMatch(std::string(1 << 20, 'a'), "x").substr(0, 4), "bad:");
}

TEST(Regex, ALiteralIsItself) {
  const auto regex = Regex::Literal("a.b");
  ASSERT_TRUE(regex.ok());
  EXPECT_FALSE((*regex->Find("axb", 0)).has_value());
  EXPECT_EQ((*regex->Find("xa.b", 0))->begin, 1u);
}

}  // namespace
}  // namespace penstock::engine
