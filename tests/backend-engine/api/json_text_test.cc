#include "backend-engine/api/json_text.h"

#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <random>

namespace penstock::engine {
namespace {

std::string Quoted(std::string_view text) {
  std::string out;
  AppendJsonString(out, text);
  return out;
}

TEST(JsonString, EscapesWhatJsonDemands) {
  EXPECT_EQ(Quoted("a\"b\\c\n\r\t"), R"("a\"b\\c\n\r\t")");
  EXPECT_EQ(Quoted(std::string_view("\0\x1f\x7f", 3)), R"("\u0000\u001f\u007f")");
  EXPECT_EQ(Quoted("é€😀"), "\"é€😀\"");
}

TEST(JsonString, ReplacesWhatIsNotUtf8) {
  EXPECT_EQ(Quoted("\xC3(\xF0\x9F\x98"), "\"\xEF\xBF\xBD(\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\"");
  EXPECT_EQ(Quoted("\xC0\x80"), "\"\xEF\xBF\xBD\xEF\xBF\xBD\"");              // Overlong.
  EXPECT_EQ(Quoted("\xED\xA0\x80"), "\"\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\"");  // Surrogate.
}

TEST(JsonString, IsValidJsonWhateverTheBytes) {
  std::mt19937 random(11);
  for (int round = 0; round < 5000; ++round) {
    std::string text(random() % 24, '\0');
    for (char& c : text) c = static_cast<char>(random());
    EXPECT_TRUE(nlohmann::json::accept(Quoted(text))) << "seed 11 round " << round;
  }
}

TEST(JsonNumber, SaysNullForWhatJsonCannotSay) {
  std::string out;
  AppendJsonNumber(out, NAN);
  AppendJsonNumber(out, -INFINITY);
  AppendJsonNumber(out, -0.25);
  EXPECT_EQ(out, "nullnull-0.25");
}

}  // namespace
}  // namespace penstock::engine
