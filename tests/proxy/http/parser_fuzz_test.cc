// The fuzz targets over mutated examples, from a seed.
#include <gtest/gtest.h>

#include "tests/fuzz/h1_target.h"
#include "tests/fuzz/h2_target.h"
#include "tests/fuzz/sse_target.h"
#include "tests/support/corpus.h"
#include "tests/support/mutate.h"
#include "tests/support/seeds.h"

namespace penstock {
namespace {

TEST(H1Fuzz, AnyBytesGetOneVerdictAndForwardAsOneRequest) {
  const std::vector<std::string> corpus = {
      "POST /v1/chat/completions?x=1 HTTP/1.1\r\nHost: api:80\r\nContent-Length: 5\r\n\r\nhello",
      "POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nTrailer: T\r\n\r\n"
      "5;e=\"q\"\r\nhello\r\nA\r\n0123456789\r\n0\r\nT: 1\r\n\r\n",
      "GET http://real/x?y HTTP/1.1\r\nHost: h\r\nConnection: close, x\r\nX: 1\r\n\r\n",
      "HEAD / HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /2 HTTP/1.1\r\nHost: h\r\n\r\n",
      "OPTIONS * HTTP/1.1\r\nHost: [::1]:8080\r\nExpect: 100-continue\r\nContent-Length: "
      "1\r\n\r\nx",
      "GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
      "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: text/plain\r\n\r\nab",
      "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: "
      "chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
      "HTTP/1.0 200 OK\r\nServer: x\r\n\r\nuntil close",
      "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
      "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
  };
  const std::vector<std::string> words = {"\r\n",
                                          "\r",
                                          "\n",
                                          "\r\n\r\n",
                                          " ",
                                          "\t",
                                          ":",
                                          ";",
                                          ",",
                                          "\"",
                                          std::string(1, '\0'),
                                          "0",
                                          "0\r\n\r\n",
                                          "Content-Length: 3\r\n",
                                          "Transfer-Encoding: chunked\r\n",
                                          "chunked",
                                          "Host: x\r\n",
                                          "HTTP/1.1",
                                          "HTTP/1.0",
                                          "Connection: keep-alive\r\n",
                                          "close",
                                          "-1",
                                          "99999999999999999999",
                                          "GET / HTTP/1.1\r\nHost: e\r\n\r\n",
                                          "%2e",
                                          "/../",
                                          "http://a@b/",
                                          "Expect: 100-continue\r\n",
                                          "ffffffffffffffff"};
  ForEachSeed(60, [&](uint64_t seed) {
    Random random(seed);
    for (int i = 0; i < 100; ++i) {
      FuzzH1(std::string(1, static_cast<char>(random.Next())) + Mutate(random, corpus, words));
    }
  });
}

TEST(H2Fuzz, AnyBytesGetOneVerdictAndForwardAsOneRequest) {
  const h2::Fields length = {{"content-length", "5"}, {"cookie", "a=1"}, {"cookie", "b"}};
  const std::vector<std::string> corpus = {
      h2::Hello() + h2::Headers(1, h2::Get("/a?b")) + h2::Headers(3, h2::Get()),
      h2::Headers(1, h2::With(h2::Post(), length), 0) + h2::Data(1, "hello", h2::kEndStream),
      h2::Headers(1, h2::Post("/v1/chat"), 0) + h2::Data(1, "a") + h2::Data(1, "") +
          h2::Headers(1, {{"x-sum", "1"}}) + h2::Reset(3, 8) + h2::WindowUpdate(1, 9),
      h2::Frame(1, 0, 1, h2::Block(h2::Get())) + h2::Frame(9, h2::kEndHeaders, 1, h2::Literal("x", "y")) +
          h2::Data(1, "x", h2::kEndStream),
      h2::Frame(1, 0x2d, 1, "\3" + h2::Number(0, 4) + "w" + h2::Block(h2::Get()) + std::string(3, '\0')) +
          h2::Frame(0, h2::kPadded, 1, std::string("\2xyz\0\0", 6)),
      h2::Headers(1, {{":status", "103"}}, 0) + h2::Headers(1, {{":status", "200"}}, 0) +
          h2::Data(1, "data: x\n\n") + h2::Headers(1, {{"x", "y"}}) + h2::Headers(3, {{":status", "204"}}),
      h2::Headers(3, {{":status", "200"}, {"content-length", "7"}}) + h2::GoAway(1, 0) + h2::Reset(1, 7),
      h2::Settings({{1, 0}, {3, 1}, {4, 10}, {5, 20000}}) + h2::Ping() + h2::Frame(2, 0, 1, "12345") +
          h2::Frame(0xfa, 0, 1, "?") + h2::WindowUpdate(0, 100),
  };
  const std::vector<std::string> words = {
      h2::Headers(1, h2::Get()), h2::Headers(3, h2::Post(), 0), h2::Headers(5, {{":status", "200"}}),
      h2::Data(1, "x"), h2::Data(3, "yz", h2::kEndStream), h2::Reset(1, 8), h2::Reset(3, 0), h2::Ping(),
      h2::Settings(), h2::Settings({{4, 0}}), h2::SettingsAck(), h2::WindowUpdate(1, 1),
      h2::WindowUpdate(0, 0x7fff'ffff), h2::GoAway(0, 0), h2::Frame(9, 4, 1, ""), h2::Frame(1, 4, 1, ""),
      h2::Literal("content-length", "2"), h2::Literal("host", "x"), h2::Literal("te", "trailers"),
      h2::Literal("expect", "100-continue"), h2::Literal("Connection", "close"), h2::Literal(":path", "*"),
      h2::Literal("a", "b\r\nc: d"), h2::Literal("", ""), std::string("\x82\x84\x86\x41\x01h", 6), "\xbe",
      std::string(1, '\0'), "\xff", "\x80", std::string(3, '\0') + "\0\1\0\0\0\1"};
  ForEachSeed(60, [&](uint64_t seed) {
    Random random(seed);
    for (int i = 0; i < 60; ++i) {
      FuzzH2(std::string(1, static_cast<char>(random.Next())) + Mutate(random, corpus, words));
    }
  });
}

TEST(SseFuzz, AnyBytesGetOneVerdict) {
  const std::vector<std::string> corpus = {
      "data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n"
      "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hi \\\"you\\\"\"}}]}\n\ndata: "
      "[DONE]\n\n",
      "data: {\"choices\":[{\"text\":\"x\"}]}\r\n\r\n: ping\r\n\r\ndata: "
      "{\"error\":{\"message\":\"m\"}}\r\n\r\n",
      "event: error\rdata: {\"error\":null}\r\rid: 3\rretry: 5\r\r",
      "data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"function\":{\"name\":\"f\"}}]}}]}\n\n",
  };
  const std::vector<std::string> words = {"\n",
                                          "\r",
                                          "\r\n",
                                          "\n\n",
                                          "data:",
                                          "data: [DONE]",
                                          "{",
                                          "}",
                                          "[",
                                          "]",
                                          "\"",
                                          "\\",
                                          ":",
                                          ",",
                                          "\"content\":\"",
                                          "\"delta\":{",
                                          "null",
                                          "{\"error\":",
                                          std::string(70, ' '),
                                          "event: error"};
  ForEachSeed(60, [&](uint64_t seed) {
    Random random(seed);
    for (int i = 0; i < 200; ++i) FuzzSse(Mutate(random, corpus, words));
  });
}

TEST(H1Fuzz, TheCorpusStillHolds) { ForEachInput("h1", FuzzH1); }

TEST(H2Fuzz, TheCorpusStillHolds) { ForEachInput("h2", FuzzH2); }

TEST(SseFuzz, TheCorpusStillHolds) { ForEachInput("sse", FuzzSse); }

}  // namespace
}  // namespace penstock
