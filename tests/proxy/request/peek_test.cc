#include "proxy/request/peek.h"

#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "proxy/base/status.h"
#include "tests/fuzz/peek_target.h"
#include "tests/support/corpus.h"
#include "tests/support/mutate.h"
#include "tests/support/seeds.h"

namespace penstock {
namespace {

constexpr uint32_t kDepth = 64;

// What is wrong with the body; "" if nothing is.
std::string Complaint(std::string_view body) {
  Peeker peeker(kDepth);
  const auto peeked = peeker.Peek(body);
  return peeked.ok() ? "" : std::string(S(peeked.status().message()));
}

std::string Canonical(std::string_view body) {
  Peeker peeker(kDepth);
  const auto peeked = peeker.Peek(body);
  EXPECT_TRUE(peeked.ok()) << peeked.status();
  std::string out;
  if (peeked.ok()) peeker.AppendCanonical(out);
  return out;
}

TEST(Peek, ReadsWhatRoutingAndCachingNeed) {
  Peeker peeker(kDepth);
  const auto peeked = peeker.Peek(R"({"stream":true,"model":"ox","temperature":0,"seed":-3,
                                      "max_tokens":7,"top_k":1,"n":2,"messages":[{"n":9}]})");
  ASSERT_TRUE(peeked.ok()) << peeked.status();
  EXPECT_EQ(peeked->model, "ox");
  EXPECT_TRUE(peeked->stream);
  EXPECT_EQ(peeked->temperature, 0.0);
  EXPECT_EQ(peeked->seed, -3);
  EXPECT_EQ(peeked->max_tokens, 7);
  EXPECT_EQ(peeked->top_k, 1);
  EXPECT_EQ(peeked->n, 2);
  EXPECT_GT(peeked->prompt_tokens_estimate, 0u);
}

// The body after its model was renamed, in its own bytes and in canonical form.
std::pair<std::string, std::string> Renamed(std::string body, std::string_view name) {
  Peeker peeker(kDepth);
  EXPECT_TRUE(peeker.Peek(body).ok());
  const absl::Status status = peeker.RenameModel(name, body);
  EXPECT_TRUE(status.ok()) << status;
  std::string canonical;
  peeker.AppendCanonical(canonical);
  return {body, canonical};
}

TEST(Peek, RenamesTheModelAndLeavesEveryOtherByte) {
  EXPECT_EQ(Renamed(R"({"model":"ox"})", "ox-70b").first, R"({"model":"ox-70b"})");
  EXPECT_EQ(Renamed("{ \"a\" : 1.50 ,\n \"model\" :\t\"o\\u0078\" \r\n, \"z\":[ \"ox\" ] }\n", "w").first,
            "{ \"a\" : 1.50 ,\n \"model\" :\t\"w\" \r\n, \"z\":[ \"ox\" ] }\n");
}

TEST(Peek, RenamesOnlyTheModelOfTheRequestItself) {
  const std::string body =
      R"({"x":{"model":"ox"},"say":"\"model\":\"ox\"","mod\u0065l":"a\"b\\","y":{"model":"ox"}})";
  EXPECT_EQ(Renamed(body, "w").first,
            R"({"x":{"model":"ox"},"say":"\"model\":\"ox\"","mod\u0065l":"w","y":{"model":"ox"}})");
}

TEST(Peek, ARenamedModelIsQuotedAsJsonWants) {
  EXPECT_EQ(Renamed(R"({"model":"ox"})", "a\"b\\c/d:\xC3\xA9").first, "{\"model\":\"a\\\"b\\\\c/d:\xC3\xA9\"}");
}

TEST(Peek, ARenamedBodyCountsAsPeeked) {
  EXPECT_EQ(Renamed(R"({"n":1, "model":"ox"})", "w").second, R"({"model":"w","n":1})");
}

TEST(Peek, WhatIsNotThereOrNullHasItsDefault) {
  Peeker peeker(kDepth);
  const auto peeked = peeker.Peek(R"({"model":"ox","stream":null,"temperature":null,"n":null})");
  ASSERT_TRUE(peeked.ok()) << peeked.status();
  EXPECT_FALSE(peeked->stream);
  EXPECT_EQ(peeked->temperature, std::nullopt);
  EXPECT_EQ(peeked->max_tokens, std::nullopt);
  EXPECT_EQ(peeked->n, 1);
}

TEST(Peek, TheNewerNameOfTheTokenLimitWinsInEitherOrder) {
  for (const char* body : {R"({"model":"ox","max_tokens":1,"max_completion_tokens":2})",
                           R"({"model":"ox","max_completion_tokens":2,"max_tokens":1})"}) {
    Peeker peeker(kDepth);
    const auto peeked = peeker.Peek(body);
    ASSERT_TRUE(peeked.ok()) << peeked.status();
    EXPECT_EQ(peeked->max_tokens, 2) << body;
  }
}

TEST(Peek, DeterministicIsAnExplicitTemperatureOfZeroOrOneChoiceAtATime) {
  const auto deterministic = [](std::string_view more) {
    Peeker peeker(kDepth);
    const auto peeked = peeker.Peek(R"({"model":"ox")" + std::string(more) + "}");
    return peeked.ok() && peeked->deterministic();
  };
  EXPECT_FALSE(deterministic(""));
  EXPECT_TRUE(deterministic(R"(,"temperature":0)"));
  EXPECT_TRUE(deterministic(R"(,"temperature":0.0)"));
  EXPECT_TRUE(deterministic(R"(,"temperature":1,"top_k":1)"));
  EXPECT_FALSE(deterministic(R"(,"temperature":0.1)"));
  EXPECT_FALSE(deterministic(R"(,"temperature":0,"n":2)"));
}

TEST(Peek, ComplaintsNameThePlaceAndTheCure) {
  EXPECT_EQ(Complaint("[]"), "the body must be a JSON object, found an array");
  EXPECT_EQ(Complaint("{}"), "model: missing; name the model that shall answer");
  EXPECT_EQ(Complaint(R"({"model":7})"), "model: expected a string, found a number");
  EXPECT_EQ(Complaint(R"({"model":"a","stream":"yes"})"),
            "stream: expected true or false, found a string");
  EXPECT_EQ(Complaint(R"({"model":"a","n":1.5})"), "n: expected an integer, found a number");
  EXPECT_TRUE(Complaint("").starts_with("the body is not valid JSON: "));
  EXPECT_TRUE(Complaint(R"({"model":"a"} x)").starts_with("the body is not valid JSON: "));
  EXPECT_TRUE(Complaint("{\"model\":\"\xff\"}").starts_with("the body is not valid JSON: "));
}

TEST(Peek, AKeyThatOccursTwiceIsRefusedHoweverDeep) {
  EXPECT_EQ(Complaint(R"({"model":"a","x":[{"y":{"k":1,"l":2,"k":3}}]})"),
            "the key \"k\" occurs twice in one object; send it once");
  EXPECT_EQ(Complaint(R"({"model":"a","m\u006fdel":"b"})"),
            "the key \"model\" occurs twice in one object; send it once");
  EXPECT_EQ(Complaint(R"({"model":"a","x":[{"k":1},{"k":2}]})"), "");
}

TEST(Peek, NestsAsDeepAsTheLimitAndNoDeeper) {
  const auto nested = [](size_t depth) {
    return R"({"model":"a","x":)" + std::string(depth, '[') + std::string(depth, ']') + "}";
  };
  EXPECT_EQ(Complaint(nested(kDepth - 2)), "");
  EXPECT_EQ(Complaint(nested(kDepth + 1)), "the body is nested deeper than 64 levels");
  EXPECT_EQ(Complaint(nested(1'000'000)), "the body is nested deeper than 64 levels");
}

TEST(Peek, ALongBodyAndThenAShortOneUseTheSameParser) {
  Peeker peeker(kDepth);
  for (const size_t size : {1u, 1u << 20, 10u}) {
    const std::string body = R"({"model":"a","x":")" + std::string(size, 'y') + "\"}";
    EXPECT_TRUE(peeker.Peek(body).ok()) << size;
  }
}

TEST(Peek, AStringIsReadWhereItLiesWhetherItHasRoomOrNot) {
  Peeker peeker(kDepth);
  for (size_t size = 0; size < 200; ++size) {
    const std::string text = R"({"model":"a","x":")" + std::string(size, 'y') + "\"}";
    std::string tight = text, roomy;
    tight.shrink_to_fit();
    roomy.reserve(text.size() + Peeker::kPadding);
    const char* const place = roomy.append(text).data();
    roomy.append(Peeker::kPadding, '"').resize(text.size());   // What lies behind is not read.
    for (std::string* const body : {&tight, &roomy}) {
      const auto peeked = peeker.Peek(*body);
      ASSERT_TRUE(peeked.ok()) << size << ": " << peeked.status();
      EXPECT_EQ(peeked->model, "a");
      EXPECT_EQ(*body, text);
    }
    EXPECT_EQ(roomy.data(), place);
    std::string cut = text.substr(0, text.size() - 1);
    EXPECT_FALSE(peeker.Peek(cut).ok()) << size;
  }
}

TEST(Canonical, OrderOfMembersWhiteSpaceAndEscapesDoNotMatter) {
  const std::string once = Canonical(R"({"model":"a","messages":[{"role":"user","content":"é/\n"}]})");
  EXPECT_EQ(once, "{\"messages\":[{\"content\":\"é/\\u000a\",\"role\":\"user\"}],\"model\":\"a\"}");
  EXPECT_EQ(Canonical("{ \"messages\" : [ {\"content\":\"\\u00e9\\/\\u000a\", \"role\":\"user\"} ],"
                      "\n\"model\":\"a\" }"), once);
}

TEST(Canonical, NumbersStayAsTheyCameEachAtItsPlace) {
  EXPECT_EQ(Canonical(R"({"z":[1.50,-2e3],"model":"12","b":{"d":0.1,"c":10},"a":7})"),
            R"({"a":7,"b":{"c":10,"d":0.1},"model":"12","z":[1.50,-2e3]})");
}

TEST(Canonical, EmptyContainersAndLiteralsStay) {
  EXPECT_EQ(Canonical(R"({"model":"a","x":[],"y":{},"z":[null,true,false,{}]})"),
            R"({"model":"a","x":[],"y":{},"z":[null,true,false,{}]})");
}

// Damaged bodies: never a crash, and what is taken has a canonical form that is
// valid JSON of the same value, and its own canonical form.
TEST(Canonical, OfADamagedBodyIsTheSameValue) {
  const std::vector<std::string> corpus = {
      R"({"model":"wren","messages":[{"role":"user","content":"a \"b\" \\ \u00e9"}],"n":1})",
      R"({"temperature":0.0,"model":"ox","stop":[],"x":{"y":[-1.25e-3,true,null,{}]}})"};
  const std::vector<std::string> words = {"\"", "\\", "{", "}", "[", "]", ",", ":", "0", "-1", "1e3",
                                          "\"model\":", "\\ud800", "null", "\xc3"};
  ForEachSeed(20'000, [&](uint64_t seed) {
    Random random(seed);
    const std::string body = Mutate(random, corpus, words);
    Peeker peeker(kDepth);
    if (!peeker.Peek(body).ok()) return;
    std::string canonical;
    peeker.AppendCanonical(canonical);
    EXPECT_EQ(nlohmann::json::parse(body), nlohmann::json::parse(canonical)) << body;
    EXPECT_EQ(Canonical(canonical), canonical) << body;
  });
}

TEST(Canonical, DifferentRequestsStayDifferent) {
  EXPECT_NE(Canonical(R"({"model":"m","a":"1"})"), Canonical(R"({"model":"m","a":1})"));
  EXPECT_NE(Canonical(R"({"model":"m","a":"\\u0061"})"), Canonical(R"({"model":"m","a":"\u0061"})"));
  EXPECT_NE(Canonical(R"({"model":"m","a":null})"), Canonical(R"({"model":"m"})"));
  EXPECT_NE(Canonical(R"({"model":"m","a":[1,2]})"), Canonical(R"({"model":"m","a":[2,1]})"));
}

TEST(Peek, AnyBytesAreRefusedOrReadAsOneRequest) {
  ForEachInput("peek", FuzzPeek);
  const std::vector<std::string> corpus = {
      R"({"model":"m","messages":[{"role":"user","content":"hi \u00e9"}],"stream":true,"temperature":0.0})",
      R"({"model":"m","n":1,"top_k":1,"seed":-7,"max_tokens":5,"max_completion_tokens":6,"a":{"b":[1,2.5e3,null]}})"};
  const std::vector<std::string> words = {"{", "}", "[", "]", ",", ":", "\"", "\\", "\\u0000", "\\ud800", "null",
                                          "1e400", "-0", "\"model\":", "\xff", "\xef\xbb\xbf", std::string(70, '[')};
  ForEachSeed(60, [&](uint64_t seed) {
    Random random(seed);
    for (int i = 0; i < 100; ++i) FuzzPeek(Mutate(random, corpus, words));
  });
}

}  // namespace
}  // namespace penstock
