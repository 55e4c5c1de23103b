// How an exchange relays an answer, and a body, while either side is slow or breaks off.
#include <charconv>
#include <string>
#include <string_view>

#include <gtest/gtest.h>

#include "proxy/request/exchange.h"
#include "tests/proxy/request/world.h"

namespace penstock {
namespace {

constexpr std::string_view kBody = R"({"model":"m"})";
constexpr std::string_view kStream = R"({"model":"m","stream":true})";
constexpr std::string_view kToken = "data: {\"choices\":[{\"text\":\"a\"}]}\n\n";

TEST(Relay, PassesEachEventOnBeforeTheNextComes) {
  World world;
  const auto client = world.Connect();
  world.Ask(*client, Post(kStream));
  world.backends[0]->Say(std::string(kEventsHead) + Chunk(kToken));
  world.Run();
  const std::string first = client->Take();
  EXPECT_EQ(StatusOf(first), 200);
  EXPECT_TRUE(first.ends_with(Chunk(kToken)));
  world.backends[0]->Say(Chunk("data: 2\n\n"));
  world.Run();
  EXPECT_EQ(client->Take(), Chunk("data: 2\n\n"));
  world.backends[0]->Say(Chunk("data: [DONE]\n\n") + Chunk(""));
  world.Run();
  EXPECT_EQ(client->Take(), Chunk("data: [DONE]\n\n") + Chunk(""));
  EXPECT_FALSE(client->closed());
}

TEST(Relay, HoldsAnEventUntilItIsWhole) {
  World world;
  const auto client = world.Connect();
  world.Ask(*client, Post(kStream));
  world.backends[0]->Say(std::string(kEventsHead) + Chunk(kToken.substr(0, 9)));
  world.Run();
  EXPECT_EQ(client->heard, "");
  world.backends[0]->Say(Chunk(std::string(kToken.substr(9)) + "data: half"));
  world.Run();
  EXPECT_TRUE(client->Take().ends_with(Chunk(kToken)));
  world.backends[0]->Say(Chunk(" and half\n\n"));
  world.Run();
  EXPECT_EQ(client->Take(), Chunk("data: half and half\n\n"));
}

TEST(Relay, TakesOutOfPromptsAnswersWhatSdksMistakeForData) {
  const std::string said = "retry: 3000\n\nid: 1\n" + std::string(kToken) +
                           "event: ping\n\n: fine\n\nid: 2\ndata: x\n\ndata: [DONE]\n\n";
  const std::string heard = std::string(kToken) + ": fine\n\ndata: x\n\n" + "data: [DONE]\n\n";
  for (size_t cut = 1; cut < said.size(); cut += 3) {
    World world;
    const auto client = world.Connect();
    world.Ask(*client, Post(kStream));
    world.backends[0]->Say(std::string(kEventsHead) + Chunk(said.substr(0, cut)));
    world.Run();
    world.backends[0]->Say(Chunk(said.substr(cut)) + Chunk(""));
    world.Run();
    std::string events;
    std::string_view rest(client->heard);
    rest.remove_prefix(rest.find("\r\n\r\n") + 4);
    while (!rest.empty()) {  // Its chunks.
      size_t size = 0;
      std::from_chars(rest.data(), rest.data() + rest.size(), size, 16);
      rest.remove_prefix(rest.find("\r\n") + 2);
      events += rest.substr(0, size);
      rest.remove_prefix(size + 2);
    }
    EXPECT_EQ(events, heard) << cut;
  }
  // Elsewhere they may mean something.
  World world;
  const auto client = world.Connect();
  world.Ask(*client, "GET /events HTTP/1.1\r\nhost: a\r\n\r\n");
  world.backends[0]->Say(std::string(kEventsHead) + Chunk("id: 1\nretry: 2\n\n") + Chunk(""));
  world.Run();
  EXPECT_TRUE(client->heard.ends_with(Chunk("id: 1\nretry: 2\n\n") + Chunk(""))) << client->heard;
}

// The client's connection is older than the backend's: what is written to it while the
// backend's bytes come is delivered in the turn after that one, and not before.
TEST(Relay, WritesAnEventInTheTurnThatItComesIn) {
  World world;
  const auto client = world.Connect();
  world.Ask(*client, Post(kStream));
  world.backends[0]->Say(std::string(kEventsHead) + Chunk(kToken));
  world.Run();
  client->Take();
  for (int i = 0; i < 3; ++i) {
    world.backends[0]->Say(Chunk(kToken));
    EXPECT_TRUE(world.network.Turn());
    EXPECT_EQ(client->heard, "");
    EXPECT_EQ(world.network.MostUnderWay("127.0.0.1:8080", 0), Chunk(kToken).size());
    EXPECT_TRUE(world.network.Turn());
    EXPECT_EQ(client->Take(), Chunk(kToken));
    EXPECT_FALSE(world.network.Turn());
  }
}

TEST(Relay, BoundsAnEventThatNeverEnds) {
  config::Server server;
  server.limits.event_bytes = 1000;
  World world(1, {}, server);
  const auto client = world.Connect();
  world.Ask(*client, Post(kStream));
  world.backends[0]->Say(std::string(kEventsHead) + Chunk(kToken) + Chunk(std::string(1001, 'x')));
  world.Wait(kSecond);
  EXPECT_NE(client->heard.find("backend b0 sent an event of more than 1000 bytes"), std::string::npos);
  EXPECT_TRUE(client->closed());
}

TEST(Relay, EndsABrokenStreamWithAnErrorEventAndACut) {
  World world(2);
  const auto client = world.Connect();
  world.Ask(*client, Post(kStream));
  ScriptedBackend& holder = Holder(world);
  holder.Say(std::string(kEventsHead) + Chunk(kToken) + Chunk("data: half"));
  world.Run();
  client->Take();
  holder.Reset();
  world.Wait(kSecond);
  EXPECT_NE(client->heard.find("data: {\"error\":{\"message\":"), std::string::npos);
  EXPECT_NE(client->heard.find("\"backend_reset\""), std::string::npos);
  EXPECT_EQ(client->heard.find("half"), std::string::npos);
  EXPECT_EQ(client->heard.find("0\r\n\r\n"), std::string::npos);
  EXPECT_TRUE(client->closed());
  EXPECT_EQ(world.backends[0]->requests + world.backends[1]->requests, 1);
}

TEST(Relay, CutsOtherAnswersThatBreakOff) {
  World world;
  const auto client = world.Connect();
  world.Ask(*client, Post(kBody));
  world.backends[0]->Say("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n12345");
  world.Run();
  EXPECT_TRUE(client->heard.ends_with("12345"));
  world.backends[0]->Reset();
  world.Wait(kSecond);
  EXPECT_TRUE(client->heard.ends_with("12345"));
  EXPECT_TRUE(client->closed());
}

TEST(Relay, ResetsAnOldClientWhoseAnswerBreaksOff) {
  World world;
  const auto client = world.Connect();
  world.Ask(*client, "GET /x HTTP/1.0\r\nhost: a\r\n\r\n");
  world.backends[0]->Say("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + Chunk("12345"));
  world.Run();
  world.backends[0]->Reset();
  world.Wait(kSecond);
  EXPECT_TRUE(client->reset);
}

TEST(Relay, PausesTheBackendWhileTheClientReadsNothing) {
  World world;
  world.network.link_options.window_bytes = 1024;
  world.network.link_options.high_mark = 64 * 1024;
  const auto client = world.Connect();
  world.Ask(*client, Post(kBody));
  client->stream->Pause();
  const size_t size = 4 << 20;
  world.backends[0]->Say("HTTP/1.1 200 OK\r\ncontent-length: " + std::to_string(size) + "\r\n\r\n");
  world.backends[0]->Say(std::string(size, 'x'));
  world.Run();
  EXPECT_GT(world.backends[0]->conns[0]->stream->buffered(), size / 2);
  client->stream->Resume();
  world.Run();
  EXPECT_EQ(world.backends[0]->conns[0]->stream->buffered(), 0u);
  EXPECT_EQ(client->heard.size() - client->heard.find("\r\n\r\n") - 4, size);
}

TEST(Relay, PausesTheClientWhileTheBackendReadsNothing) {
  World world;
  world.network.link_options.window_bytes = 1024;
  world.network.link_options.high_mark = 64 * 1024;
  const auto client = world.Connect();
  const size_t size = 4 << 20;
  world.Ask(*client, "PUT /files/1 HTTP/1.1\r\nhost: a\r\ncontent-length: " + std::to_string(size) + "\r\n\r\nx");
  auto& conn = *world.backends[0]->conns[0];
  conn.stream->Pause();
  world.Ask(*client, std::string(size - 1, 'x'));
  EXPECT_GT(client->stream->buffered(), size / 2);
  conn.stream->Resume();
  world.Run();
  EXPECT_EQ(world.backends[0]->requests, 1);
  world.backends[0]->Say(Ok("kept"));
  world.Run();
  EXPECT_TRUE(client->heard.ends_with("kept"));
}

TEST(Relay, CountsNoByteThatItDoesNotKeepForSendingAgain) {
  config::Server server;
  server.limits.buffered_bytes = 1000;
  World world(1, {}, server);
  const auto client = world.Connect();
  world.Ask(*client, "PUT /files/1 HTTP/1.1\r\nhost: a\r\ncontent-length: 3000\r\n\r\n");
  for (int i = 0; i < 6; ++i) {
    world.Ask(*client, std::string(500, 'x'));
    EXPECT_LE(world.totals.buffered_bytes, 1000u);
  }
  EXPECT_EQ(world.backends[0]->requests, 1);
  world.backends[0]->Say(Ok("{}"));
  world.Run();
  EXPECT_EQ(StatusOf(client->Take()), 200);
}

TEST(Relay, HoldsLittleOfABodyWhileItsBackendIsDialled) {
  World world;
  world.network.link_options.window_bytes = 1024;
  world.network.black_holes.insert(world.backends[0]->address);
  const auto client = world.Connect();
  const size_t size = 4 << 20;
  world.Ask(*client, "PUT /files/1 HTTP/1.1\r\nhost: a\r\ncontent-length: " + std::to_string(size) + "\r\n\r\n");
  world.Ask(*client, std::string(size, 'x'));
  EXPECT_GT(client->stream->buffered(), size - 4 * Exchange::kHeldMax);
  EXPECT_LE(world.totals.buffered_bytes, 2 * Exchange::kHeldMax);
  world.Wait(2 * kSecond);
  EXPECT_EQ(StatusOf(client->Take()), 504);
}

}  // namespace
}  // namespace penstock
