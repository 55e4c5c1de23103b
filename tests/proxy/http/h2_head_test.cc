// Header blocks as heads: what is joined, placed, counted and refused.
#include <gtest/gtest.h>

#include "proxy/http/h2_head.h"
#include "tests/support/h2_wire.h"

namespace penstock {
namespace {

struct Reader {
  explicit Reader(const CodecLimits& told = {}) : limits(told), head(limits) {}

  std::optional<ProtocolError> Request(const h2::Fields& fields, bool end_stream = true) {
    Add(fields);
    return head.ReadRequest(request, end_stream, arena);
  }
  std::optional<ProtocolError> Response(const h2::Fields& fields, bool end_stream = false,
                                        bool to_head = false) {
    Add(fields);
    return head.ReadResponse(response, end_stream, to_head, arena);
  }
  void Add(const h2::Fields& fields) {
    head.Begin();
    for (const auto& [name, value] : fields) head.Add(name, value, arena, count);
  }
  std::string Code(const h2::Fields& fields) {
    const std::optional<ProtocolError> error = Request(fields);
    return error ? std::to_string(error->status) + " " + std::string(error->code) : "";
  }

  CodecLimits limits;
  H2Head head;
  Arena arena{2048, 256 * 1024};
  H2FieldCount count;
  RequestHead request;
  ResponseHead response;
};

std::string Lines(std::span<const Header> headers) {
  std::string text;
  for (const Header& header : headers) {
    text += std::string(header.name) + ": " + std::string(header.value) + "\n";
  }
  return text;
}

TEST(H2Head, TheAuthorityTakesThePlaceOfHost) {
  Reader reader;
  EXPECT_FALSE(reader.Request(h2::With(h2::Get(), {{"a", "1"}, {"host", "elsewhere"}, {"b", "2"}})));
  EXPECT_EQ(Lines(reader.request.headers), "host: h\na: 1\nb: 2\n");
  EXPECT_EQ(reader.request.authority, "h");
}

TEST(H2Head, HostAloneIsTheAuthority) {
  Reader reader;
  EXPECT_FALSE(reader.Request(
      {{":method", "GET"}, {":scheme", "https"}, {":path", "/p?q"}, {"a", "1"}, {"host", "me:1"}}));
  EXPECT_EQ(Lines(reader.request.headers), "a: 1\nhost: me:1\n");
  EXPECT_EQ(reader.request.authority, "me:1");
  EXPECT_EQ(reader.request.scheme, "https");
  EXPECT_EQ(reader.request.path, "/p");
  EXPECT_EQ(reader.request.target, "/p?q");
}

TEST(H2Head, CookieCrumbsBecomeOneFieldWhereTheFirstOneStood) {
  Reader reader;
  EXPECT_FALSE(reader.Request(h2::With(
      h2::Get(), {{"a", "1"}, {"cookie", "x=1"}, {"b", "2"}, {"cookie", ""}, {"cookie", "z"}})));
  EXPECT_EQ(Lines(reader.request.headers), "host: h\na: 1\ncookie: x=1; ; z\nb: 2\n");
  Reader single;
  EXPECT_FALSE(single.Request(h2::With(h2::Get(), {{"cookie", "x=1; y=2"}})));
  EXPECT_EQ(Lines(single.request.headers), "host: h\ncookie: x=1; y=2\n");
  Reader empty;
  EXPECT_FALSE(empty.Request(h2::With(h2::Get(), {{"cookie", ""}, {"cookie", ""}, {"cookie", "y"}})));
  EXPECT_EQ(Lines(empty.request.headers), "host: h\ncookie: ; ; y\n");
}

TEST(H2Head, FramingComesFromTheLengthAndTheEndOfTheStream) {
  Reader reader;
  EXPECT_FALSE(reader.Request(h2::Get(), true));
  EXPECT_EQ(reader.request.framing, Framing::kNone);
  EXPECT_FALSE(reader.Request(h2::Post(), false));
  EXPECT_EQ(reader.request.framing, Framing::kChunked);
  EXPECT_FALSE(reader.Request(h2::With(h2::Post(), {{"content-length", "12"}}), false));
  EXPECT_EQ(reader.request.framing, Framing::kLength);
  EXPECT_EQ(reader.request.content_length, 12u);
  EXPECT_FALSE(reader.request.expect_continue);
  EXPECT_FALSE(reader.Request(h2::With(h2::Post(), {{"expect", "100-Continue"}}), false));
  EXPECT_TRUE(reader.request.expect_continue);
  EXPECT_FALSE(reader.Request(h2::With(h2::Post(), {{"expect", "100-continue"}}), true));
  EXPECT_FALSE(reader.request.expect_continue);
}

TEST(H2Head, AnAnswersFramingIsThatOfHttp1) {
  Reader reader;
  EXPECT_FALSE(reader.Response({{":status", "200"}}));
  EXPECT_EQ(reader.response.framing, Framing::kChunked);
  EXPECT_TRUE(reader.response.keep_alive);
  EXPECT_FALSE(reader.Response({{":status", "200"}}, true));
  EXPECT_EQ(reader.response.framing, Framing::kNone);
  EXPECT_FALSE(reader.Response({{":status", "304"}, {"content-length", "5"}}, true));
  EXPECT_EQ(reader.response.framing, Framing::kNone);
  EXPECT_FALSE(reader.Response({{":status", "200"}, {"content-length", "5"}}, true, true));
  EXPECT_EQ(reader.response.framing, Framing::kLength);
  EXPECT_EQ(reader.response.content_length, 5u);
  EXPECT_TRUE(reader.Response({{":status", "099"}}).has_value());
}

TEST(H2Head, WhatHttp1WouldNotTakeIsRefusedHereToo) {
  const struct {
    h2::Fields fields;
    std::string code;
  } cases[] = {
      {h2::Get("/a/../../b"), "400 invalid_target"},
      {h2::Get("/a%2fb"), "400 invalid_target"},
      {h2::Get("/a b"), "400 invalid_target"},
      {h2::Get("/a#b"), "400 invalid_target"},
      {h2::Get("http://h/a"), "400 invalid_target"},
      {{{":method", "BREW"}, {":scheme", "http"}, {":authority", "h"}, {":path", "/"}},
       "400 invalid_method"},
      {{{":method", "get"}, {":scheme", "http"}, {":authority", "h"}, {":path", "/"}},
       "400 invalid_method"},
      {h2::Get("a"), "400 invalid_target"},
      {h2::Get("*"), "400 invalid_target"},
      {{{":method", "OPTIONS"}, {":scheme", "http"}, {":authority", "h"}, {":path", "*"}}, ""},
      {{{":method", "GET"}, {":scheme", "ftp"}, {":authority", "h"}, {":path", "/"}},
       "400 invalid_target"},
      {{{":method", "GET"}, {":scheme", "http"}, {":authority", "u@h"}, {":path", "/"}},
       "400 invalid_host"},
      {{{":method", "CONNECT"}, {":authority", "h:1"}}, "405 method_not_allowed"},
      {h2::With(h2::Get(), {{"expect", "200-ok"}}), "417 unknown_expectation"},
      {h2::With(h2::Get(), {{"content-length", "99999999999999999999"}}), "400 invalid_framing"},
      {h2::With(h2::Get(), {{"transfer_encoding", "chunked"}}), "400 invalid_header"},
      {h2::Get("/" + std::string(8 * 1024, 'x')), "414 request_line_too_long"},
  };
  for (const auto& [fields, code] : cases) {
    EXPECT_EQ(Reader().Code(fields), code) << fields.back().second.substr(0, 80);
  }
}

TEST(H2Head, EachFieldCountsAndSoDoesEachCrumb) {
  for (const std::string name : {"a", "cookie"}) {
    h2::Fields fields = h2::Get();
    for (int i = 0; i < 100; ++i) fields.push_back({name, "1"});
    EXPECT_EQ(Reader().Code(fields), "");
    fields.push_back({name, "1"});
    EXPECT_EQ(Reader().Code(fields), "431 too_many_headers");
  }
}

TEST(H2Head, BytesCountWithAnOverheadForEachField) {
  CodecLimits limits;
  limits.header_bytes = 500;
  size_t used = 0;
  for (const auto& [name, value] : h2::Get()) used += name.size() + value.size() + 32;
  const size_t rest = 500 - used - 32 - 1;
  EXPECT_EQ(Reader(limits).Code(h2::With(h2::Get(), {{"a", std::string(rest, 'x')}})), "");
  EXPECT_EQ(Reader(limits).Code(h2::With(h2::Get(), {{"a", std::string(rest + 1, 'x')}})),
            "431 headers_too_large");
}

TEST(H2Head, TrailersShareTheirMessagesBudget) {
  CodecLimits limits;
  limits.header_count = 3;
  Reader reader(limits);
  EXPECT_FALSE(reader.Request(h2::With(h2::Get(), {{"a", "1"}, {"b", "2"}}), false));
  reader.Add({{"x-sum", "1"}});
  EXPECT_TRUE(reader.head.ReadTrailers(reader.arena).has_value());
  reader.Add({{"x-sum", "1"}});
  EXPECT_FALSE(reader.head.ReadTrailers(reader.arena).has_value());
}

TEST(H2Head, TrailersThatChangeTheMessageAreDropped) {
  Reader reader;
  reader.Add({{"x-sum", "1"}, {"authorization", "x"}, {"content-length", "3"}});
  const std::span<Header> trailers = reader.head.ReadTrailers(reader.arena).value();
  EXPECT_FALSE(trailers[0].dropped);
  EXPECT_TRUE(trailers[1].dropped);
  EXPECT_TRUE(trailers[2].dropped);
}

TEST(H2Head, NothingOfABlockReachesTheNext) {
  Reader reader;
  EXPECT_FALSE(reader.Request(h2::With(h2::Get("/first"), {{"a", "1"}})));
  EXPECT_EQ(Reader().Code({{":method", "GET"}, {":scheme", "http"}, {":path", "/"}}),
            "400 invalid_host");
  reader.Add({{":status", "204"}});
  EXPECT_EQ(reader.head.status(), 204);
  EXPECT_EQ(reader.head.method(), "");
  reader.Add({});
  EXPECT_EQ(reader.head.status(), 0);
}

}  // namespace
}  // namespace penstock
