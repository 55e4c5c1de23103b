// The client role of the HTTP/1 codec: what backends may answer, and what ends
// the connection.
#include <gtest/gtest.h>

#include "tests/support/codec_log.h"

namespace penstock {
namespace {

struct Ask {
  std::string_view method = "GET";
  bool end = false;  // The connection ends after the bytes.
  bool upgrade = false;
};

std::string Parse(std::string_view bytes, size_t step, const Ask& ask) {
  CodecLog log;
  const auto codec = MakeH1Codec(CodecRole::kClient, log, {});
  Gather out;
  codec->WriteRequest(out, {.method = ask.method, .target = "/", .authority = "h", .upgrade = ask.upgrade}, {});
  EXPECT_FALSE(codec->idle());
  while (!bytes.empty() && !log.failed()) {
    const std::string_view part = bytes.substr(0, step);
    codec->Feed(part);
    bytes.remove_prefix(part.size());
  }
  if (ask.end && !log.failed()) codec->FeedEnd();
  return log.TakeText() + (codec->reusable() ? "reusable" : "not reusable");
}

std::string ParseAtEverySplit(std::string_view bytes, const Ask& ask = {}) {
  const std::string whole = Parse(bytes, bytes.size(), ask);
  for (size_t step = 1; step < bytes.size(); ++step) {
    EXPECT_EQ(Parse(bytes, step, ask), whole) << "in steps of " << step << ": " << bytes;
  }
  return whole;
}

TEST(H1Response, LengthChunksOrTheEndOfTheConnectionEndABody) {
  EXPECT_EQ(ParseAtEverySplit("HTTP/1.1 200 Fine\r\nContent-Length: 2\r\n\r\nab"),
            "response 1 200 Fine body=length 2\n  Content-Length: 2\nbody ab\nend 1\nreusable");
  EXPECT_EQ(ParseAtEverySplit("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
                              "2\r\nab\r\n0\r\nendpoint-load-metrics: x\r\n\r\n"),
            "response 1 200 OK body=chunked\n  Transfer-Encoding: chunked\nbody ab\nend 1\n"
            "  endpoint-load-metrics: x\nreusable");
  EXPECT_EQ(ParseAtEverySplit("HTTP/1.0 200 OK\r\n\r\nab", {.end = true}),
            "response 1 200 OK body=until close close\nbody ab\nend 1\nnot reusable");
  EXPECT_EQ(ParseAtEverySplit("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"),
            "response 1 200 OK body=length 0 close\n  Connection: close\n  Content-Length: 0\n"
            "end 1\nnot reusable");
}

TEST(H1Response, InterimAnswersComeBeforeTheAnswer) {
  EXPECT_EQ(
      ParseAtEverySplit("HTTP/1.1 103 Early Hints\r\nX: 1\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n"
                        "HTTP/1.1 204 No Content\r\n\r\n"),
      "interim 1 103\n  X: 1\ninterim 1 100\nresponse 1 204 No Content body=none\nend 1\nreusable");
  std::string many;
  for (int i = 0; i < 9; ++i) many += "HTTP/1.1 100 Continue\r\n\r\n";
  EXPECT_NE(ParseAtEverySplit(many).find("error 502 too_many_interim"), std::string::npos);
}

TEST(H1Response, HeadAnd304HaveNoBodyWhateverTheySay) {
  EXPECT_EQ(ParseAtEverySplit("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n", {.method = "HEAD"}),
            "response 1 200 OK body=length 10\n  Content-Length: 10\nend 1\nreusable");
  EXPECT_EQ(ParseAtEverySplit("HTTP/1.1 304 Not Modified\r\nContent-Length: 10\r\n\r\n"),
            "response 1 304 Not Modified body=none\n  Content-Length: 10\nend 1\nreusable");
}

TEST(H1Response, A101IsTakenOnlyWhereItWasAskedForAndOpensATunnel) {
  const std::string switching =
      "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n";
  EXPECT_EQ(ParseAtEverySplit(switching), "error 502 unasked_upgrade\nnot reusable");
  EXPECT_EQ(ParseAtEverySplit(switching + "HTTP/1.1 200 OK\r\n\r\n", {.end = true, .upgrade = true}),
            "response 1 101 Switching Protocols body=none close\n  Upgrade: x\n  Connection: upgrade\n"
            "body HTTP/1.1 200 OK\r\n\r\n\nend 1\nnot reusable");
  EXPECT_EQ(ParseAtEverySplit("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", {.upgrade = true}),
            "response 1 200 OK body=length 2\n  Content-Length: 2\nbody ok\nend 1\nreusable");
}

TEST(H1Response, BytesAfterTheAnswerMakeTheConnectionUseless) {
  for (const std::string_view answer :
       {"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\naHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 204 No Content\r\n\r\nx",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n0"}) {
    const std::string text = ParseAtEverySplit(answer);
    EXPECT_NE(text.find("end 1\nerror 502 unsolicited_bytes\nnot reusable"), std::string::npos)
        << text;
  }
}

TEST(H1Response, BadAnswersAreRefused) {
  using namespace std::string_view_literals;
  for (const std::string_view answer :
       {"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n"sv,
        "HTTP/1.1 200 OK\r\nContent-Length: 1e3\r\n\r\n"sv,
        "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n"sv,
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"sv,
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"sv,
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nxx"sv,
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"sv,
        "HTTP/2.0 200 OK\r\n\r\n"sv, "HTTP/1.1 20 OK\r\n\r\n"sv, "HTTP/1.1 099 No\r\n\r\n"sv,
        "ICY 200 OK\r\n\r\n"sv, "RTSP/1.0 200 OK\r\n\r\n"sv, "HTTP/1.1 200 OK\nX: y\n\n"sv,
        "HTTP/1.1 200 OK\r\nX: a\0b\r\n\r\n"sv, "SSH-2.0-x\r\n"sv, "\x15\x03\x01"sv,
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"sv}) {
    const std::string text = ParseAtEverySplit(answer);
    EXPECT_NE(text.find("error 502 "), std::string::npos) << answer << "\n" << text;
    EXPECT_TRUE(text.ends_with("not reusable"));
  }
}

TEST(H1Response, AnEndInTheMiddleIsAnError) {
  for (const std::string_view answer :
       {"", "HTTP/1.1 20", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n",
        "HTTP/1.1 100 Continue\r\n\r\n"}) {
    EXPECT_NE(ParseAtEverySplit(answer, {.end = true}).find("error 502 unexpected_end"),
              std::string::npos);
  }
}

TEST(H1Response, BytesOnAnIdleConnectionAreUnsolicited) {
  CodecLog log;
  const auto codec = MakeH1Codec(CodecRole::kClient, log, {});
  EXPECT_TRUE(codec->reusable());
  EXPECT_EQ(codec->Feed("HTTP/1.1 408 Request Timeout\r\n\r\n"), 0u);
  EXPECT_EQ(log.text(), "error 502 unsolicited_bytes\n");
  EXPECT_FALSE(codec->reusable());
}

TEST(H1Response, AnAnswerBeforeTheRequestIsWholeSpendsTheConnection) {
  CodecLog log;
  const auto codec = MakeH1Codec(CodecRole::kClient, log, {});
  Gather out;
  codec->WriteRequest(out,
                      {.method = "POST",
                       .target = "/",
                       .authority = "h",
                       .framing = Framing::kLength,
                       .content_length = 10},
                      {});
  codec->Feed("HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n");
  EXPECT_FALSE(codec->reusable());
}

TEST(H1Response, OneConnectionServesManyRequests) {
  CodecLog log;
  const auto codec = MakeH1Codec(CodecRole::kClient, log, {});
  Gather out;
  for (MessageId id = 1; id <= 3; ++id) {
    EXPECT_EQ(codec->WriteRequest(out, {.method = "GET", .target = "/", .authority = "h"}, {}), id);
    codec->Feed("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx");
    EXPECT_TRUE(codec->idle());
    EXPECT_TRUE(codec->reusable());
  }
}

}  // namespace
}  // namespace penstock
