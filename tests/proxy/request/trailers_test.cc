// Fields after a body: on their way from a backend to a client and the other way.
#include <string>

#include <gtest/gtest.h>

#include "tests/proxy/request/world.h"

namespace penstock {
namespace {

constexpr std::string_view kAnswer =
    "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nfine\r\n0\r\n"
    "x-checksum: 9a\r\nendpoint-load-metrics: TEXT cpu_utilization=0.5\r\nset-cookie: a=b\r\n\r\n";

TEST(Trailers, OfAnAnswerReachClientsThatSayThatTheyTakeThem) {
  World world;
  const auto client = world.Connect();
  world.Ask(*client, "GET /x HTTP/1.1\r\nhost: a\r\nte: deflate;q=0.5, Trailers\r\n\r\n");
  world.backends[0]->Say(kAnswer);
  world.Run();
  EXPECT_TRUE(client->Take().ends_with("4\r\nfine\r\n0\r\nx-checksum: 9a\r\n\r\n"));
}

TEST(Trailers, OfAnAnswerAreLeftOutForOthers) {
  World world;
  const auto client = world.Connect();
  for (const std::string_view te : {"", "te: gzip\r\n"}) {
    world.Ask(*client, "GET /x HTTP/1.1\r\nhost: a\r\n" + std::string(te) + "\r\n");
    world.backends[0]->Say(kAnswer);
    world.Run();
    EXPECT_TRUE(client->Take().ends_with("4\r\nfine\r\n0\r\n\r\n"));
  }
  EXPECT_FALSE(client->closed());
}

TEST(Trailers, OfABodyThatPassesThroughReachTheBackend) {
  World world;
  const auto client = world.Connect();
  world.Ask(*client, "POST /x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n");
  world.Ask(*client, "0\r\nx-checksum: 9a\r\nauthorization: Bearer other\r\n\r\n");
  const auto& conn = world.backends[0]->conns.back();
  EXPECT_TRUE(conn->heard.ends_with("2\r\nab\r\n0\r\nx-checksum: 9a\r\n\r\n"));
}

}  // namespace
}  // namespace penstock
