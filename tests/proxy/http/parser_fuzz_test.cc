// The fuzz targets over mutated examples, from a seed.
#include <gtest/gtest.h>

#include "tests/fuzz/h1_target.h"
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

TEST(SseFuzz, TheCorpusStillHolds) { ForEachInput("sse", FuzzSse); }

}  // namespace
}  // namespace penstock
