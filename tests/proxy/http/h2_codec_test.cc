// The HTTP/2 codec against itself: what one end says is what the other hears.
#include <gtest/gtest.h>

#include "tests/support/h2_peer.h"
#include "tests/support/h2_wire.h"

namespace penstock {
namespace {

struct Pair {
  explicit Pair(const CodecLimits& limits = {})
      : client(CodecRole::kClient, limits), server(CodecRole::kServer, limits) {
    Converse();
  }
  MessageId Ask(const RequestHead& head, std::span<const Header> extra = {}) {
    return client.codec().WriteRequest(client.out(), head, extra);
  }
  void Converse(size_t step = SIZE_MAX) { penstock::Converse(client, server, step); }

  H2Peer client, server;
};

constexpr RequestHead kGet = {.method = "GET", .target = "/v1/models?x=1", .authority = "api:80"};
RequestHead Post(Framing framing = Framing::kChunked, uint64_t length = 0) {
  return {.method = "POST", .target = "/v1/chat", .authority = "api", .framing = framing,
          .content_length = length};
}
ResponseHead Answer(uint16_t status, Framing framing = Framing::kChunked, uint64_t length = 0) {
  ResponseHead head;
  head.status = status;
  head.framing = framing;
  head.content_length = length;
  return head;
}

TEST(H2Codec, ARequestAndItsAnswerArriveAsTheyWereWritten) {
  Pair pair;
  const Header extra[] = {{"X-Request-Id", "7", KnownHeader::kXRequestId}, {"x-odd", "a b"}};
  const MessageId id = pair.Ask(Post(), extra);
  pair.client.codec().WriteBody(pair.client.out(), id, "hel");
  pair.client.codec().WriteBody(pair.client.out(), id, "lo");
  pair.client.codec().WriteEnd(pair.client.out(), id);
  pair.Converse();
  EXPECT_EQ(id, 1u);
  EXPECT_EQ(pair.server.of(id).head,
            "POST http /v1/chat path=/v1/chat authority=api body=chunked\n"
            "host: api\nx-request-id: 7\nx-odd: a b\n");
  EXPECT_EQ(pair.server.of(id).body, "hello");
  EXPECT_EQ(pair.server.of(id).ends, 1);
  EXPECT_FALSE(pair.server.codec().idle());

  pair.server.codec().WriteResponse(pair.server.out(), id, Answer(200), {});
  pair.server.codec().WriteBody(pair.server.out(), id, "data: 1\n\n");
  pair.Converse();
  EXPECT_EQ(pair.client.of(id).head, "200 body=chunked\n");
  EXPECT_EQ(pair.client.of(id).body, "data: 1\n\n");
  const Header trailer[] = {{"x-sum", "1"}};
  pair.server.codec().WriteEnd(pair.server.out(), id, trailer);
  pair.Converse();
  EXPECT_EQ(pair.client.of(id).ends, 1);
  EXPECT_EQ(pair.client.of(id).trailers, "x-sum: 1\n");
  EXPECT_TRUE(pair.client.codec().idle());
  EXPECT_TRUE(pair.server.codec().idle());
  EXPECT_TRUE(pair.client.codec().reusable());
}

TEST(H2Codec, AHeadLooksAsHttp1WouldHaveGivenIt) {
  H2Peer server(CodecRole::kServer);
  server.Feed(h2::Hello() +
              h2::Headers(1, h2::With(h2::Post("/a?b=c"), {{"cookie", "a=1"},
                                                           {"host", "other"},
                                                           {"te", "trailers"},
                                                           {"cookie", "b=2"},
                                                           {"expect", "100-continue"},
                                                           {"content-length", "3"},
                                                           {"cookie", "c=3"}}),
                          0));
  EXPECT_EQ(server.of(1).head,
            "POST http /a?b=c path=/a authority=h body=length 3 expect\n"
            "host: h\ncookie: a=1; b=2; c=3\nte: trailers\nexpect: 100-continue\n"
            "content-length: 3\n");
  EXPECT_EQ(server.of(1).request.headers[0].id, KnownHeader::kHost);
  EXPECT_EQ(server.of(1).request.headers[4].id, KnownHeader::kContentLength);
  EXPECT_TRUE(server.of(1).request.keep_alive);
  EXPECT_FALSE(server.of(1).request.upgrade);
  server.codec().WriteContinue(server.out(), 1);
  EXPECT_EQ(FramesOf(server.Pump()), (std::vector<std::string>{"HEADERS 1"}));
}

TEST(H2Codec, AnEventLeavesInTheTurnInWhichItIsWritten) {
  Pair pair;
  const MessageId id = pair.Ask(kGet);
  pair.Converse();
  pair.server.codec().WriteResponse(pair.server.out(), id, Answer(200), {});
  pair.server.Pump();
  pair.server.codec().WriteBody(pair.server.out(), id, "data: 1\n\n");
  EXPECT_EQ(FramesOf(pair.server.Take()), (std::vector<std::string>{"DATA 1 9"}));
}

TEST(H2Codec, ABodyIsReferencedAndNotCopied) {
  Pair pair;
  const MessageId id = pair.Ask(kGet);
  pair.Converse();
  const std::string body(20'000, 'x');
  pair.server.codec().WriteResponse(pair.server.out(), id, Answer(200), {});
  pair.server.codec().WriteBody(pair.server.out(), id, body);
  size_t referenced = 0;
  for (const std::string_view piece : pair.server.out().pieces()) {
    const bool inside = piece.data() >= body.data() && piece.data() < body.data() + body.size();
    if (inside) referenced += piece.size();
  }
  EXPECT_EQ(referenced, body.size());
}

TEST(H2Codec, WhatTheWindowHasNoRoomForWaitsAndTheOwnerHearsWhenThereIsRoom) {
  Pair pair;
  const MessageId id = pair.Ask(kGet);
  pair.Converse();
  const size_t window = 64 * 1024;
  H2Peer& server = pair.server;
  server.codec().WriteResponse(server.out(), id, Answer(200), {});
  pair.client.codec().PauseBody(id);
  const std::string body(window, 'x');
  server.codec().WriteBody(server.out(), id, body);
  EXPECT_EQ(server.codec().unsent(id), 0u);
  server.codec().WriteBody(server.out(), id, body);
  EXPECT_EQ(server.codec().unsent(id), window);
  server.codec().WriteBody(server.out(), id, "and more");
  pair.Converse();
  EXPECT_EQ(pair.client.of(id).body.size(), window);   // Paused: not one byte beyond its window.
  EXPECT_EQ(server.of(id).writable, 0);

  pair.client.codec().ResumeBody(pair.client.out(), id);
  pair.Converse();
  EXPECT_EQ(server.codec().unsent(id), 0u);
  EXPECT_EQ(server.of(id).writable, 1);
  EXPECT_EQ(pair.client.of(id).body, body + body + "and more");
}

TEST(H2Codec, AMessageWhoseOwnerDoesNotLookAtWhatWaitsIsReset) {
  CodecLimits limits;
  limits.h2.unsent_bytes = 1000;
  Pair pair(limits);
  const MessageId id = pair.Ask(kGet);
  pair.Converse();
  H2Peer& server = pair.server;
  server.codec().WriteResponse(server.out(), id, Answer(200), {});
  pair.client.codec().PauseBody(id);
  const std::string body(64 * 1024, 'x');
  server.codec().WriteBody(server.out(), id, body);
  server.codec().WriteBody(server.out(), id, body);
  server.codec().WriteBody(server.out(), id, body.substr(0, 1001));
  pair.Converse();
  EXPECT_EQ(server.of(id).resets, 0);
  server.codec().WriteBody(server.out(), id, "x");
  pair.Converse();
  EXPECT_EQ(server.of(id).error_code, kInternalError);
  EXPECT_EQ(pair.client.of(id).resets, 1);
  EXPECT_EQ(server.codec().unsent(id), 0u);
  EXPECT_FALSE(server.failed());
}

TEST(H2Codec, OneMessageIsResetAndTheOthersGoOn) {
  Pair pair;
  const MessageId first = pair.Ask(kGet), second = pair.Ask(kGet);
  pair.Converse();
  pair.client.codec().WriteReset(pair.client.out(), first, kCancel);
  pair.Converse();
  EXPECT_EQ(pair.server.of(first).error_code, kCancel);
  EXPECT_EQ(pair.client.of(first).resets, 0);   // Who gave it up is not told.
  pair.server.codec().WriteResponse(pair.server.out(), first, Answer(200), {});
  pair.server.codec().WriteBody(pair.server.out(), first, "late");
  pair.server.codec().WriteResponse(pair.server.out(), second, Answer(200, Framing::kLength, 2), {});
  pair.server.codec().WriteBody(pair.server.out(), second, "okay");   // Past its length: cut.
  pair.Converse();
  EXPECT_EQ(pair.client.of(first).heads, 0);
  EXPECT_EQ(pair.client.of(second).body, "ok");
  EXPECT_EQ(pair.client.of(second).ends, 1);
  EXPECT_TRUE(pair.server.codec().idle());
}

TEST(H2Codec, AnAnswerShorterThanItsLengthIsReset) {
  Pair pair;
  const MessageId id = pair.Ask(kGet);
  pair.Converse();
  pair.server.codec().WriteResponse(pair.server.out(), id, Answer(200, Framing::kLength, 9), {});
  pair.server.codec().WriteBody(pair.server.out(), id, "short");
  pair.server.codec().WriteEnd(pair.server.out(), id);
  pair.Converse();
  EXPECT_EQ(pair.client.of(id).resets, 1);
  EXPECT_EQ(pair.client.of(id).ends, 0);
}

TEST(H2Codec, AnAnswerBeforeTheEndOfItsRequestStopsTheRequest) {
  Pair pair;
  const MessageId id = pair.Ask(Post());
  pair.Converse();
  pair.server.codec().WriteResponse(pair.server.out(), id, Answer(413, Framing::kLength, 2), {});
  pair.server.codec().WriteBody(pair.server.out(), id, "no");
  EXPECT_EQ(FramesOf(pair.server.Pump()),
            (std::vector<std::string>{"HEADERS 1", "DATA 1 2 end", "RST_STREAM 1 code 0"}));
  EXPECT_TRUE(pair.server.codec().idle());
  EXPECT_EQ(pair.server.of(id).ends + pair.server.of(id).resets, 0);
}

TEST(H2Codec, ConnectIsRefusedWith405) {
  H2Peer server(CodecRole::kServer);
  server.Feed(h2::Hello() + h2::Headers(1, {{":method", "CONNECT"}, {":authority", "h:1"}}, 0));
  EXPECT_EQ(server.of(1).heads, 0);
  EXPECT_EQ(server.of(1).refusal.status, 405);
  server.codec().WriteResponse(server.out(), 1, Answer(405, Framing::kLength, 0), {});
  EXPECT_EQ(FramesOf(server.Pump()),
            (std::vector<std::string>{"HEADERS 1 end", "RST_STREAM 1 code 0"}));
}

TEST(H2Codec, APathHasTheOneSpellingThatItHasInHttp1) {
  H2Peer server(CodecRole::kServer);
  server.Feed(h2::Hello() + h2::Headers(1, h2::With(h2::Get("//v1/./%6dodels?a=//"), {})) +
              h2::Headers(3, h2::With(h2::Get("/v1%2fmodels"), {})));
  EXPECT_TRUE(server.of(1).head.starts_with("GET http /v1/models?a=// path=/v1/models "))
      << server.of(1).head;
  EXPECT_EQ(server.of(3).heads, 0);
  EXPECT_EQ(server.of(3).refusal.status, 400);
}

TEST(H2Codec, AFloodEndsTheConnectionAndSaysWhichLimit) {
  H2Peer server(CodecRole::kServer);
  std::string bytes = h2::Hello();
  for (uint32_t i = 0; i < 201; ++i) {
    bytes += h2::Headers(2 * i + 1, h2::Get()) + h2::Reset(2 * i + 1, kCancel);
  }
  const std::string out = server.Feed(bytes);
  EXPECT_EQ(server.error().code, "flood");
  EXPECT_EQ(server.error().detail, "resets");
  EXPECT_EQ(server.errors(), 1);
  EXPECT_EQ(FramesOf(out).back(), "GOAWAY last 401 code 11");
  EXPECT_EQ(server.all().size(), 1u);   // What was reset in the bytes that brought it was never told.
  EXPECT_EQ(server.codec().Feed(h2::Ping()), 0u);
}

TEST(H2Codec, GoingAwayLetsTheOldRequestsEndAndRefusesNewOnes) {
  Pair pair;
  const MessageId first = pair.Ask(kGet);
  pair.Converse();
  pair.server.codec().StartClosing(pair.server.out());
  pair.server.codec().FinishClosing(pair.server.out(), kNoError);
  const MessageId crossing = pair.Ask(kGet);
  pair.Converse();
  EXPECT_EQ(pair.client.goaways(), 1);
  EXPECT_FALSE(pair.client.codec().reusable());
  EXPECT_EQ(pair.client.codec().room(), 0u);
  EXPECT_EQ(pair.client.of(crossing).error_code, kRefusedStream);
  EXPECT_EQ(pair.client.of(crossing).resets, 1);
  pair.server.codec().WriteResponse(pair.server.out(), first, Answer(204), {});
  pair.Converse();
  EXPECT_EQ(pair.client.of(first).ends, 1);
  EXPECT_EQ(pair.server.of(crossing).heads, 0);
  EXPECT_TRUE(pair.server.codec().idle());
}

}  // namespace
}  // namespace penstock
