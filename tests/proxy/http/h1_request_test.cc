// The server role of the HTTP/1 codec: what clients may send, and what is refused.
#include <gtest/gtest.h>

#include "tests/support/codec_log.h"

namespace penstock {
namespace {

// Feeds `bytes` cut at every position in `cuts`, taking the next message at once.
std::string Parse(std::string_view bytes, const std::vector<size_t>& cuts, bool end = false,
                  const CodecLimits& limits = {}) {
  CodecLog log;
  const std::unique_ptr<Codec> codec = MakeH1Codec(CodecRole::kServer, log, limits);
  size_t begin = 0;
  std::string pending;
  const auto feed = [&](std::string_view part) {
    pending += part;
    while (!pending.empty() && !log.failed()) {
      const size_t taken = codec->Feed(pending);
      pending.erase(0, taken);
      codec->NextMessage();
      if (taken == 0) break;
    }
  };
  for (const size_t cut : cuts) {
    feed(bytes.substr(begin, cut - begin));
    begin = cut;
  }
  feed(bytes.substr(begin));
  if (end && !log.failed()) codec->FeedEnd();
  return log.TakeText();
}

// The verdict at once, after checking that it is the same at every single cut
// and byte by byte.
std::string ParseAtEverySplit(std::string_view bytes, const CodecLimits& limits = {}) {
  const std::string whole = Parse(bytes, {}, false, limits);
  std::vector<size_t> all;
  for (size_t cut = 1; cut < bytes.size(); ++cut) {
    EXPECT_EQ(Parse(bytes, {cut}, false, limits), whole) << "cut at " << cut << " of " << bytes;
    all.push_back(cut);
  }
  EXPECT_EQ(Parse(bytes, all, false, limits), whole) << "byte by byte: " << bytes;
  return whole;
}

TEST(H1Request, ASimpleGetIsARequestWithoutBody) {
  EXPECT_EQ(ParseAtEverySplit("GET /v1/models?a=1 HTTP/1.1\r\nHost: api:8080\r\nX-A:  b \r\n\r\n"),
            "request 1 GET /v1/models?a=1 path=/v1/models authority=api:8080 body=none\n"
            "  Host: api:8080\n  X-A: b\nend 1\n");
}

TEST(H1Request, ABodyWithLengthOrChunksIsHandedOn) {
  EXPECT_EQ(ParseAtEverySplit("POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 0005\r\n\r\nhello"),
            "request 1 POST /a path=/a authority=h body=length 5\n  Host: h\n"
            "  Content-Length: 0005\nbody hello\nend 1\n");
  EXPECT_EQ(ParseAtEverySplit("POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: Chunked\r\n\r\n"
                              "5\r\nhello\r\n1;x=y\r\n!\r\n0\r\nX-T: 1\r\nHost: evil\r\n\r\n"),
            "request 1 POST /a path=/a authority=h body=chunked\n  Host: h\n"
            "  Transfer-Encoding: Chunked\nbody hello!\nend 1\n  X-T: 1\n");
}

TEST(H1Request, PipelinedRequestsComeOneAfterTheOther) {
  CodecLog log;
  const auto codec = MakeH1Codec(CodecRole::kServer, log, {});
  const std::string first = "POST /1 HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nab";
  const std::string second = "GET /2 HTTP/1.1\r\nHost: h\r\n\r\n";
  EXPECT_EQ(codec->Feed(first + second), first.size());
  EXPECT_EQ(log.requests(), 1);
  EXPECT_EQ(codec->Feed(second), 0u);
  codec->NextMessage();
  EXPECT_EQ(codec->Feed(second), second.size());
  EXPECT_EQ(log.requests(), 2);
  ParseAtEverySplit(first + second + first);
}

TEST(H1Request, AfterConnectionCloseNothingMoreIsRead) {
  EXPECT_EQ(ParseAtEverySplit("GET / HTTP/1.1\r\nHost: h\r\nConnection: x, Close\r\n\r\n"
                              "POST /2 HTTP/1.1\r\nHost: h\r\n\r\n"),
            "request 1 GET / path=/ authority=h body=none close\n  Host: h\n"
            "  Connection: x, Close\nend 1\n");
}

constexpr std::string_view kHead = "POST /a HTTP/1.1\r\nHost: h\r\n";

std::string Chunked(std::string_view body) {
  return std::string(kHead) + "Transfer-Encoding: chunked\r\n\r\n" + std::string(body);
}
std::string WithField(std::string_view field) {
  return std::string(kHead) + std::string(field) + "\r\n\r\n12345GET / HTTP/1.1\r\nHost: h\r\n\r\n";
}
std::string WithTarget(std::string_view target) {
  return "GET " + std::string(target) + " HTTP/1.1\r\nHost: h\r\n\r\n";
}

// What is sent is refused with that status, and never seen as a request.
void ExpectRefused(std::string_view bytes, int status) {
  const std::string text = ParseAtEverySplit(bytes);
  EXPECT_NE(text.find("error " + std::to_string(status)), std::string::npos) << bytes << "\n"
                                                                             << text;
  EXPECT_EQ(text.rfind("error "), text.find("error "));
}

TEST(H1Request, AmbiguousLengthsAreRefused) {
  for (const std::string_view field : {"Content-Length: 5\r\nTransfer-Encoding: chunked",
                                       "Transfer-Encoding: chunked\r\nContent-Length: 5",
                                       "Content-Length: 5\r\nContent-Length: 5",
                                       "Content-Length: 5\r\nContent-Length: 6",
                                       "Content-Length: +5",
                                       "Content-Length: -5",
                                       "Content-Length: 0x5",
                                       "Content-Length: 5_0",
                                       "Content-Length: 5 5",
                                       "Content-Length: 5,5",
                                       "Content-Length:",
                                       "Content-Length: \r\nContent-Length: 5",
                                       "Content-Length: 9223372036854775808",
                                       "Content-Length: 18446744073709551616",
                                       "Content-Length: 18446744073709551621",
                                       "Transfer-Encoding: chunked, chunked",
                                       "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
                                       "Transfer-Encoding: ,chunked",
                                       "Transfer-Encoding: chunked,",
                                       "Transfer-Encoding: \x0b"
                                       "chunked",
                                       "Transfer-Encoding: \xa0"
                                       "chunked",
                                       "Transfer_Encoding: chunked",
                                       "Content_Length: 5",
                                       "Transfer-Encoding : chunked",
                                       "Content-Length : 5"}) {
    const std::string text = ParseAtEverySplit(WithField(field));
    EXPECT_EQ(text.find("request"), std::string::npos) << field << "\n" << text;
    EXPECT_TRUE(text.starts_with("error 400") || text.starts_with("error 501")) << field << "\n"
                                                                                << text;
  }
}

TEST(H1Request, OtherTransferCodingsAreNotImplemented) {
  for (const std::string_view field :
       {"Transfer-Encoding: xchunked", "Transfer-Encoding: chunked;q=1",
        "Transfer-Encoding: identity", "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: gzip"}) {
    const std::string text = ParseAtEverySplit(WithField(field));
    EXPECT_TRUE(text.starts_with("error 501") || text.starts_with("error 400")) << field << "\n"
                                                                                << text;
  }
  ExpectRefused("POST / HTTP/1.0\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400);
}

TEST(H1Request, BrokenChunksAreRefused) {
  for (const std::string_view body :
       {"0x5\r\nhello\r\n", "+5\r\nhello\r\n", "-1\r\nhello\r\n", "5_0\r\nhello\r\n",
        " 5\r\nhello\r\n", "5 \r\nhello\r\n", "\r\nhello\r\n", "12345678901234567\r\nhello\r\n",
        "5\nhello\r\n0\r\n\r\n", "5\r\nhelloXX0\r\n\r\n", "5\r\nhello\r\n0\r\n\rX",
        "5;a=\rb\r\nhello\r\n", "5;a=\nb\r\nhello\r\n", "5;a=\"b\r\nhello\r\n", "g\r\n"}) {
    ExpectRefused(Chunked(body), 400);
  }
}

TEST(H1Request, BrokenFieldsAreRefused) {
  using namespace std::string_view_literals;
  for (const std::string_view field :
       {"X: a\nY: b"sv, "X: a\rb"sv, "X: a\0b"sv, "X\0: a"sv, "X: a\r\n folded"sv,
        "X: a\r\n\tfolded"sv, "no colon"sv, ": empty name"sv, "X\x80: a"sv, "X\": a"sv, "X(: a"sv,
        "X : a"sv, "X\t: a"sv, "X: a\x01"sv, "X: a\x7f"sv, "Connection: authorization"sv,
        "Connection: close, Transfer-Encoding"sv, "Host: h"sv}) {
    ExpectRefused(WithField(field), 400);
  }
  ExpectRefused("GET / HTTP/1.1\r\n Host: h\r\n\r\n", 400);
}

TEST(H1Request, TheHostIsOneHostWithAnOptionalPort) {
  ExpectRefused("GET / HTTP/1.1\r\n\r\n", 400);
  for (const std::string_view host :
       {"", "a@b", "a/b", "a,b", "a b", "a:b", "a:1:2", "[::1", "[x]", "a?b", "a#b", "a:123456"}) {
    ExpectRefused("GET / HTTP/1.1\r\nHost: " + std::string(host) + "\r\n\r\n", 400);
  }
  for (const std::string_view host : {"a", "a.b:1", "[::1]", "[::1]:80", "10.0.0.1:8080", "a_b"}) {
    const std::string text =
        ParseAtEverySplit("GET / HTTP/1.1\r\nHost: " + std::string(host) + "\r\n\r\n");
    EXPECT_NE(text.find("authority=" + std::string(host) + " "), std::string::npos) << text;
  }
  EXPECT_NE(ParseAtEverySplit("GET / HTTP/1.0\r\n\r\n").find("body=none close"), std::string::npos);
}

TEST(H1Request, AbsoluteFormBecomesOriginFormWithItsOwnAuthority) {
  EXPECT_EQ(ParseAtEverySplit("GET http://real:81/a/b?c HTTP/1.1\r\nHost: other\r\n\r\n"),
            "request 1 GET /a/b?c path=/a/b authority=real:81 body=none\n  Host: real:81\nend 1\n");
  EXPECT_EQ(ParseAtEverySplit("GET HTTP://real HTTP/1.1\r\nHost: h\r\n\r\n"),
            "request 1 GET / path=/ authority=real body=none\n  Host: real\nend 1\n");
  EXPECT_EQ(ParseAtEverySplit("GET http://real?q HTTP/1.1\r\nHost: h\r\n\r\n"),
            "request 1 GET /?q path=/ authority=real body=none\n  Host: real\nend 1\n");
  for (const std::string_view target :
       {"ftp://h/", "http://u@h/", "http:///a", "http://h/../a", "h:80", "a", "*", "http://h#a"}) {
    ExpectRefused(WithTarget(target), 400);
  }
  EXPECT_NE(ParseAtEverySplit("OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n").find("path=* "),
            std::string::npos);
}

TEST(H1Request, PathsThatCouldBeReadInTwoWaysAreRefused) {
  for (const std::string_view target :
       {"/../a", "/%2e%2E/a", "/.%2e", "/v1%2Fchat", "/a%5cb", "/a%00", "/a%zz", "/a%2", "/a%", "/a#b",
        "/a\\b", "/a?b#c", "/\x80", "/a\x01"}) {
    ExpectRefused(WithTarget(target), 400);
  }
  for (const std::string_view target :
       {"/", "/a;p", "/a..b", "/...", "/a%20b", "/.well-known", "/a?../%2f"}) {
    EXPECT_TRUE(ParseAtEverySplit(WithTarget(target)).starts_with("request 1 GET " + std::string(target)))
        << target;
  }
}

TEST(H1Request, OtherPathsHaveOneSpellingBeforeAnybodyLooksAtThem) {
  EXPECT_EQ(ParseAtEverySplit(WithTarget("//v1/./x/..//%6dodels?a=//..")),
            "request 1 GET /v1/models?a=//.. path=/v1/models authority=h body=none\n  Host: h\nend 1\n");
  EXPECT_EQ(ParseAtEverySplit("GET http://real//a/../b HTTP/1.1\r\nHost: h\r\n\r\n"),
            "request 1 GET /b path=/b authority=real body=none\n  Host: real\nend 1\n");
  CodecLimits strict;
  strict.paths = PathRule::kStrict;
  for (const std::string_view target : {"//a", "/a/./b", "/a/..", "/%2e/a"}) {
    EXPECT_EQ(ParseAtEverySplit(WithTarget(target), strict), "error 400 invalid_target\n");
  }
}

TEST(H1Request, OtherMethodsAndVersionsHaveTheirOwnStatus) {
  ExpectRefused("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", 405);
  ExpectRefused("TRACE / HTTP/1.1\r\nHost: h\r\n\r\n", 405);
  ExpectRefused("get / HTTP/1.1\r\nHost: h\r\n\r\n", 400);
  ExpectRefused("G=\":<> / HTTP/1.1\r\nHost: h\r\n\r\n", 400);
  ExpectRefused(std::string(2000, 'A'), 400);
  ExpectRefused("GET / HTTP/1.2\r\nHost: h\r\n\r\n", 505);
  ExpectRefused("GET / HTTP/9.9\r\nHost: h\r\n\r\n", 505);
  ExpectRefused("GET / HTTP/2.0\r\nHost: h\r\n\r\n", 505);
  ExpectRefused("GET / HTTP/0.9\r\nHost: h\r\n\r\n", 505);
  ExpectRefused("GET /\r\n\r\n", 505);
  ExpectRefused("GET / RTSP/1.0\r\nHost: h\r\n\r\n", 400);
  ExpectRefused("GET / HTTP/1.1x\r\nHost: h\r\n\r\n", 505);
  ExpectRefused("SSH-2.0-OpenSSH_9.2\r\n", 400);
  ExpectRefused("PROXY TCP4 1.2.3.4 1.2.3.4 1 1\r\n", 400);
  ExpectRefused("\x16\x03\x01\x02", 400);
  EXPECT_EQ(ParseAtEverySplit("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), "error 505 http2_preface\n");
}

TEST(H1Request, ExpectAndUpgradeAreSaidNotActedOn) {
  EXPECT_NE(
      ParseAtEverySplit(std::string(kHead) + "Expect: 100-Continue\r\nContent-Length: 1\r\n\r\nx")
          .find("body=length 1 expect\n"),
      std::string::npos);
  ExpectRefused(std::string(kHead) + "Expect: 200\r\n\r\n", 417);
  ExpectRefused(std::string(kHead) + "Expect: 100-continue\r\nExpect: 100-continue\r\n\r\n", 417);
  const std::string text = ParseAtEverySplit(
      "GET /1 HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
      "GET /2 HTTP/1.1\r\nHost: h\r\n\r\n");
  EXPECT_NE(text.find("body=none upgrade\n"), std::string::npos) << text;
  EXPECT_NE(text.find("request 2 GET /2 "), std::string::npos) << text;
}

TEST(H1Request, EveryLimitIsReachedAndHolds) {
  CodecLimits limits;
  limits.header_bytes = 200;
  limits.header_count = 4;
  limits.request_line_bytes = 50;
  limits.chunk_extension_bytes = 10;
  const auto head_of = [](size_t size) {
    std::string head = "GET / HTTP/1.1\r\nHost: h\r\nX: ";
    head.append(size - head.size() - 4, 'x');
    return head + "\r\n\r\n";
  };
  EXPECT_TRUE(ParseAtEverySplit(head_of(200), limits).starts_with("request"));
  EXPECT_EQ(ParseAtEverySplit(head_of(201), limits), "error 431 headers_too_large\n");
  EXPECT_EQ(ParseAtEverySplit("GET / HTTP/1.1\r\nHost: h\r\nX:" + std::string(300, ' '), limits),
            "error 431 headers_too_large\n");
  std::string many = "GET / HTTP/1.1\r\nHost: h\r\n";
  for (int i = 0; i < 3; ++i) many += "a: b\r\n";
  EXPECT_TRUE(ParseAtEverySplit(many + "\r\n", limits).starts_with("request"));
  EXPECT_EQ(ParseAtEverySplit(many + "a: b\r\n\r\n", limits), "error 431 too_many_headers\n");
  const auto line_of = [](size_t size) {
    return "GET /" + std::string(size - 14, 'p') + " HTTP/1.1\r\nHost: h\r\n\r\n";
  };
  EXPECT_TRUE(ParseAtEverySplit(line_of(50), limits).starts_with("request"));
  EXPECT_EQ(ParseAtEverySplit(line_of(51), limits), "error 414 request_line_too_long\n");
  const std::string chunks = "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
  EXPECT_NE(ParseAtEverySplit(chunks + "1;abcde\r\nx\r\n1;abcdef\r\ny\r\n0\r\n\r\n", limits)
                .find("error 400 chunk_extensions_too_long\n"),
            std::string::npos);
  EXPECT_NE(ParseAtEverySplit(chunks + "0\r\nT: " + std::string(300, 't') + "\r\n\r\n", limits)
                .find("error 431 headers_too_large\n"),
            std::string::npos);
}

TEST(H1Request, ALimitHasTheSameSayBeforeABadByteHoweverTheBytesAreCut) {
  CodecLimits limits;
  limits.header_bytes = 200;
  limits.header_count = 2;
  limits.request_line_bytes = 50;
  limits.chunk_extension_bytes = 10;
  EXPECT_EQ(ParseAtEverySplit("GET /" + std::string(60, 'p') + "\x01", limits),
            "error 414 request_line_too_long\n");
  EXPECT_EQ(ParseAtEverySplit("GET /" + std::string(20, 'p') + "\x01", limits),
            "error 400 invalid_target\n");
  EXPECT_EQ(ParseAtEverySplit("GET / HTTP/1.1\r\nHost: h\r\na: b\r\nc\x01", limits),
            "error 431 too_many_headers\n");
  EXPECT_EQ(ParseAtEverySplit("GET / HTTP/1.1\r\nHost: h\r\nc\x01", limits), "error 400 invalid_header\n");
  const auto verdict = [&](const std::string& rest) {
    const std::string told = ParseAtEverySplit(
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nHost: h\r\n\r\n" + rest, limits);
    return told.substr(std::min(told.find("error"), told.size()));
  };
  EXPECT_EQ(verdict("1;" + std::string(20, 'e') + "\x01"), "error 400 chunk_extensions_too_long\n");
  limits.header_count = 3;
  EXPECT_EQ(verdict("0\r\nT: " + std::string(300, 't') + "\x01"), "error 431 headers_too_large\n");
}

TEST(H1Request, AnEndInTheMiddleIsAnErrorAndBetweenMessagesIsNot) {
  EXPECT_EQ(Parse("GET / HT", {}, true), "error 400 unexpected_end\n");
  EXPECT_EQ(Parse("", {}, true), "");
  EXPECT_NE(Parse(std::string(kHead) + "Content-Length: 9\r\n\r\nhalf", {}, true)
                .find("error 400 unexpected_end"),
            std::string::npos);
}

}  // namespace
}  // namespace penstock
