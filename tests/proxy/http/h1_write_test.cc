// What the HTTP/1 codec writes.
#include <gtest/gtest.h>

#include "tests/support/codec_log.h"

namespace penstock {
namespace {

std::string Text(Gather& out) {
  std::string text;
  for (const std::string_view piece : out.pieces()) text += piece;
  out.Clear();
  return text;
}

class Server {
 public:
  explicit Server(std::string_view request) {
    EXPECT_EQ(codec->Feed(request), request.size());
    EXPECT_EQ(log.requests(), 1);
  }
  std::string Answer(const ResponseHead& head, std::string_view body = {}) {
    codec->WriteResponse(out, 1, head, {});
    if (!body.empty()) codec->WriteBody(out, 1, body);
    codec->WriteEnd(out, 1);
    return Text(out);
  }

  CodecLog log;
  std::unique_ptr<Codec> codec = MakeH1Codec(CodecRole::kServer, log, {});
  Gather out;
};

constexpr std::string_view kGet = "GET / HTTP/1.1\r\nHost: h\r\n\r\n";
constexpr std::string_view kGet10 = "GET / HTTP/1.0\r\n\r\n";
constexpr std::string_view kGet10Kept = "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n";
constexpr std::string_view kHead = "HEAD / HTTP/1.1\r\nHost: h\r\n\r\n";

TEST(H1Write, AnAnswerIsFramedForTheVersionOfItsRequest) {
  const ResponseHead length{.status = 200, .framing = Framing::kLength, .content_length = 2};
  const ResponseHead chunked{.status = 200, .framing = Framing::kChunked};
  const ResponseHead until_close{.status = 200, .framing = Framing::kUntilClose};
  EXPECT_EQ(Server(kGet).Answer(length, "ab"), "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nab");
  EXPECT_EQ(Server(kGet).Answer(chunked, "ab"),
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n");
  EXPECT_EQ(Server(kGet).Answer(until_close, "ab"),
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n");
  EXPECT_EQ(Server(kGet10).Answer(chunked, "ab"), "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nab");
  EXPECT_EQ(Server(kGet10Kept).Answer(length, "ab"),
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: keep-alive\r\n\r\nab");
  EXPECT_EQ(Server(kGet10).Answer(length, "ab"),
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nab");
}

TEST(H1Write, WhatHasNoBodyGetsNone) {
  const ResponseHead length{.status = 200, .framing = Framing::kLength, .content_length = 2};
  EXPECT_EQ(Server(kHead).Answer(length, "ab"), "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n");
  EXPECT_EQ(
      Server(kGet).Answer({.status = 204, .framing = Framing::kLength, .content_length = 2}, "ab"),
      "HTTP/1.1 204 No Content\r\n\r\n");
  EXPECT_EQ(Server(kGet).Answer({.status = 304, .framing = Framing::kChunked}, "ab"),
            "HTTP/1.1 304 Not Modified\r\n\r\n");
  EXPECT_EQ(Server(kGet).Answer({.status = 404}),
            "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n");
}

TEST(H1Write, FieldsThatCouldSplitTheMessageAreLeftOut) {
  using namespace std::string_view_literals;
  Server server(kGet);
  std::vector<Header> fields = {{"a", "1"},
                                {"b", "x\r\nevil: 1"},
                                {"c\r\n", "1"},
                                {"d", "x\0y"sv},
                                {"e", "gone", KnownHeader::kOther, true},
                                {"content-length", "99", KnownHeader::kContentLength},
                                {"connection", "x", KnownHeader::kConnection}};
  ResponseHead head{.status = 200, .headers = fields};
  EXPECT_EQ(server.Answer(head), "HTTP/1.1 200 OK\r\na: 1\r\ncontent-length: 0\r\n\r\n");
}

TEST(H1Write, ARequestIsSpeltOutWithItsFraming) {
  CodecLog log;
  const auto codec = MakeH1Codec(CodecRole::kClient, log, {});
  Gather out;
  std::vector<Header> fields = {{"Host", "old", KnownHeader::kHost}, {"X", "1"}};
  const Header extra[] = {{"y", "2"}};
  RequestHead head{.method = "POST",
                   .target = "/p?q",
                   .authority = "new",
                   .headers = fields,
                   .framing = Framing::kLength,
                   .content_length = 3};
  const MessageId id = codec->WriteRequest(out, head, extra);
  codec->WriteBody(out, id, "abc");
  EXPECT_EQ(Text(out),
            "POST /p?q HTTP/1.1\r\nhost: old\r\nX: 1\r\ny: 2\r\ncontent-length: 3\r\n\r\nabc");
  codec->Feed("HTTP/1.1 204 No\r\n\r\n");
  fields[0].dropped = true;
  head.framing = Framing::kChunked;
  codec->WriteRequest(out, head, {});
  codec->WriteBody(out, 2, "abc");
  codec->WriteEnd(out, 2);
  EXPECT_EQ(Text(out),
            "POST /p?q HTTP/1.1\r\nhost: new\r\nX: 1\r\ntransfer-encoding: chunked\r\n\r\n"
            "3\r\nabc\r\n0\r\n\r\n");
  codec->Feed("HTTP/1.1 204 No\r\n\r\n");
  codec->StartClosing(out);
  codec->WriteRequest(out, {.method = "POST", .target = "/", .authority = "h"}, {});
  EXPECT_EQ(Text(out),
            "POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
  EXPECT_FALSE(codec->reusable());
}

TEST(H1Write, AnAnswerShorterOrLongerThanAnnouncedSpendsTheConnection) {
  const ResponseHead head{.status = 200, .framing = Framing::kLength, .content_length = 3};
  Server shorter(kGet);
  shorter.Answer(head, "ab");
  EXPECT_FALSE(shorter.codec->reusable());
  Server longer(kGet);
  EXPECT_TRUE(longer.Answer(head, "abcd").ends_with("\r\n\r\nabc"));
  EXPECT_FALSE(longer.codec->reusable());
  Server exact(kGet);
  exact.Answer(head, "abc");
  EXPECT_TRUE(exact.codec->reusable());
}

TEST(H1Write, ClosingIsSaidInTheNextAnswer) {
  Server server(kGet);
  server.codec->StartClosing(server.out);
  EXPECT_EQ(server.Answer({.status = 200}),
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
  server.codec->NextMessage();
  EXPECT_EQ(server.codec->Feed(kGet), kGet.size());
  EXPECT_EQ(server.log.requests(), 1);
}

TEST(H1Write, ContinueIsOnlyForThoseWhoUnderstandIt) {
  Server server(kGet);
  server.codec->WriteContinue(server.out, 1);
  EXPECT_EQ(Text(server.out), "HTTP/1.1 100 Continue\r\n\r\n");
  Server old(kGet10);
  old.codec->WriteContinue(old.out, 1);
  EXPECT_EQ(Text(old.out), "");
}

TEST(H1Write, ARefusedRequestIsAnsweredOnceWithClose) {
  CodecLog log;
  const auto codec = MakeH1Codec(CodecRole::kServer, log, {});
  Gather out;
  codec->Feed(kGet);
  codec->WriteResponse(out, 1, {.status = 200}, {});
  codec->NextMessage();
  codec->Feed("nonsense\r\n\r\n");
  EXPECT_TRUE(log.failed());
  Text(out);
  codec->WriteResponse(out, 0, {.status = 400}, {});
  EXPECT_EQ(Text(out),
            "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
  EXPECT_EQ(codec->Feed(kGet), 0u);
}

TEST(H1Write, AfterA101TheBytesOfBothSidesAreTheirOwn) {
  constexpr std::string_view kUpgrade =
      "GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
  Server server(kUpgrade);
  EXPECT_EQ(server.codec->Feed("early"), 0u);   // Held until the answer is known.
  const Header upgrade{"upgrade", "websocket", KnownHeader::kUpgrade};
  server.codec->WriteResponse(server.out, 1, {.status = 101}, std::span(&upgrade, 1));
  EXPECT_EQ(Text(server.out),
            "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n");
  EXPECT_EQ(server.codec->Feed("early"), 5u);
  EXPECT_EQ(server.codec->Feed("GET / HTTP/1.1\r\n\r\n"), 18u);
  server.codec->WriteBody(server.out, 1, "frame");
  EXPECT_EQ(Text(server.out), "frame");
  EXPECT_FALSE(server.codec->idle());
  EXPECT_FALSE(server.codec->reusable());
  server.codec->FeedEnd();
  EXPECT_TRUE(server.log.TakeText().ends_with("body earlyGET / HTTP/1.1\r\n\r\n\nend 1\n"));
  EXPECT_EQ(server.log.requests(), 1);
}

TEST(H1Write, AskingForAnotherProtocolIsSaidToTheBackend) {
  CodecLog log;
  const auto codec = MakeH1Codec(CodecRole::kClient, log, {});
  Gather out;
  const Header upgrade{"upgrade", "websocket", KnownHeader::kUpgrade};
  codec->WriteRequest(out, {.method = "GET", .target = "/", .authority = "h", .upgrade = true},
                      std::span(&upgrade, 1));
  EXPECT_EQ(Text(out), "GET / HTTP/1.1\r\nhost: h\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n");
  codec->WriteBody(out, 1, "too early");
  EXPECT_EQ(Text(out), "");
  codec->Feed("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n");
  codec->WriteBody(out, 1, "frame");
  EXPECT_EQ(Text(out), "frame");
  EXPECT_FALSE(codec->idle());
  EXPECT_FALSE(codec->reusable());
}

}  // namespace
}  // namespace penstock
