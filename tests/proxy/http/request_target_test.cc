#include "proxy/http/request_target.h"

#include <gtest/gtest.h>

#include "proxy/http/codec_limits.h"
#include "tests/fuzz/request_target_target.h"
#include "tests/support/seeds.h"
#include "tests/support/mutate.h"
#include "tests/support/corpus.h"

namespace penstock {
namespace {

std::string Normal(std::string_view target) {
  FuzzRequestTarget(target);
  const std::optional<TargetRead> read = ReadTargetOf(target, PathRule::kNormalize);
  return read ? read->target : "400";
}
std::string Strict(std::string_view target) {
  const std::optional<TargetRead> read = ReadTargetOf(target, PathRule::kStrict);
  return read ? read->target : "400";
}

TEST(RequestTarget, WhatIsInItsOneSpellingStaysWhereItIs) {
  for (const std::string_view target : {"/", "/v1/chat/completions", "/a/", "/a;p=1", "/a..b", "/...", "/.well-known/x",
                                        "/a%20b", "/%C3%A9", "/a?b=//../%2f%00", "/a?", "/~x/-_.y"}) {
    RequestHead head{.method = "GET", .target = target};
    std::string storage = "untouched";
    ASSERT_FALSE(ReadTarget(head, PathRule::kStrict, storage)) << target;
    EXPECT_EQ(head.target.data(), target.data());
    EXPECT_EQ(head.path, target.substr(0, target.find('?')));
    EXPECT_EQ(storage, "untouched");
  }
}

TEST(RequestTarget, SlashesAndDotSegmentsAreResolved) {
  struct Case {
    std::string_view target, normal;
  };
  for (const Case& c : {Case{"//", "/"}, {"//admin", "/admin"}, {"/a//b///c", "/a/b/c"}, {"/a//", "/a/"},
                        {"/./a", "/a"}, {"/a/.", "/a/"}, {"/a/./", "/a/"}, {"/a/../b", "/b"}, {"/a/b/..", "/a/"},
                        {"/a/b/../..", "/"}, {"/a/..//..", "400"}, {"/..", "400"}, {"/../a", "400"},
                        {"//../a", "400"}, {"/a/../../b", "400"}, {"/./..", "400"},
                        {"/a/b/../../c?x=/../", "/c?x=/../"},
                        {"/%2e%2e/a", "400"}, {"/a/%2E%2e/b", "/b"}, {"/a/.%2e", "/"}, {"/%2e/a", "/a"}}) {
    EXPECT_EQ(Normal(c.target), c.normal) << c.target;
    EXPECT_EQ(Strict(c.target), "400") << c.target;
  }
}

TEST(RequestTarget, EscapesHaveOneSpelling) {
  for (const auto& [target, normal] : {std::pair{"/%61dmin", "/admin"}, {"/%7Euser", "/~user"}, {"/a%2db", "/a-b"},
                                       {"/%c3%a9", "/%C3%A9"}, {"/a%3fb", "/a%3Fb"}, {"/a%2541", "/a%2541"},
                                       {"/a%23", "/a%23"}, {"/%61?%61", "/a?%61"}}) {
    EXPECT_EQ(Normal(target), normal) << target;
    EXPECT_EQ(Strict(target), normal) << target;
  }
}

TEST(RequestTarget, WhatAnotherReaderCouldTakeForAnotherPathIsRefused) {
  using namespace std::string_view_literals;
  for (const std::string_view target :
       {"/v1%2Fchat"sv, "/v1%2fchat"sv, "/a%5cb"sv, "/a%5Cb"sv, "/a%00b"sv, "/a%"sv, "/a%2"sv, "/a%zz"sv, "/a%2z"sv,
        "/a#b"sv, "/a?b#c"sv, "/a\\b"sv, "/a b"sv, "/a\tb"sv, "/a\0b"sv, "/\x80"sv, "/a\x7f"sv, "/a?\x80"sv, "/a? b"sv,
        ""sv, "a"sv, "http://h/"sv, "?a"sv}) {
    EXPECT_EQ(Normal(target), "400") << target;
    EXPECT_EQ(Strict(target), "400") << target;
  }
}

TEST(RequestTarget, SomeMethodsAreNotAllowed) {
  std::string storage;
  for (const std::string_view method : {"CONNECT", "TRACE"}) {
    RequestHead head{.method = method, .target = "a:1"};
    EXPECT_EQ(ReadTarget(head, PathRule::kNormalize, storage)->status, 405);
  }
  RequestHead star{.method = "OPTIONS", .target = "*"};
  EXPECT_FALSE(ReadTarget(star, PathRule::kNormalize, storage));
  EXPECT_EQ(star.path, "*");
  star.method = "GET";
  EXPECT_EQ(ReadTarget(star, PathRule::kNormalize, storage)->status, 400);
}

TEST(RequestTarget, AnyBytesHaveOneSpellingOrNone) {
  ForEachInput("request_target", FuzzRequestTarget);
  const std::vector<std::string> corpus = {"/v1/models?x=1", "/a/../b/./c//d", "/%2e%2E/%61;p",
                                           "/a%20b/%C3%A9?%zz", "*"};
  const std::vector<std::string> words = {"/",   "//",  ".", "..", "%2e", "%2F", "%25",
                                          "%5c", "%",   "?", "#",  "\\",  "/../"};
  ForEachSeed(60, [&](uint64_t seed) {
    Random random(seed);
    for (int i = 0; i < 200; ++i) FuzzRequestTarget(Mutate(random, corpus, words));
  });
}

}  // namespace
}  // namespace penstock
