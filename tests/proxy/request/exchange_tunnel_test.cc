// Connections that change to another protocol.
#include <gtest/gtest.h>

#include "tests/proxy/request/world.h"

namespace penstock {
namespace {

constexpr std::string_view kAsk =
    "GET /chat HTTP/1.1\r\nHost: api\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Key: k\r\n\r\n";
constexpr std::string_view kAgreed =
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Accept: a\r\n\r\n";

config::Pool Allowing() {
  config::Pool pool;
  pool.upgrades = {"websocket"};
  pool.timeouts.tunnel = absl::Seconds(20);
  return pool;
}

std::string& Heard(World& world) { return world.backends[0]->conns.back()->heard; }

TEST(Tunnel, BeginsWhenTheBackendAgrees) {
  World world(1, Allowing());
  const auto client = world.Connect();
  EXPECT_EQ(world.Ask(*client, kAsk), "");
  const std::string request = world.backends[0]->last_request;
  EXPECT_NE(request.find("\r\nupgrade: websocket\r\n"), std::string::npos) << request;
  EXPECT_NE(request.find("\r\nconnection: upgrade\r\n"), std::string::npos) << request;
  EXPECT_NE(request.find("\r\nSec-WebSocket-Key: k\r\n"), std::string::npos) << request;

  world.backends[0]->Say(std::string(kAgreed) + "hello");
  world.Run();
  const std::string answer = client->Take();
  EXPECT_TRUE(answer.starts_with("HTTP/1.1 101 Switching Protocols\r\n")) << answer;
  EXPECT_NE(answer.find("\r\nUpgrade: websocket\r\n"), std::string::npos) << answer;
  EXPECT_NE(answer.find("\r\nSec-WebSocket-Accept: a\r\n"), std::string::npos) << answer;
  EXPECT_TRUE(answer.ends_with("\r\nconnection: upgrade\r\n\r\nhello")) << answer;

  EXPECT_EQ(world.Ask(*client, "\x81\x01x GET / HTTP/1.1\r\n"), "");
  EXPECT_EQ(Heard(world), "\x81\x01x GET / HTTP/1.1\r\n");
  world.backends[0]->Say("HTTP/1.1 200 OK\r\n\r\n");
  world.Run();
  EXPECT_EQ(client->Take(), "HTTP/1.1 200 OK\r\n\r\n");
}

TEST(Tunnel, WhatIsSentTooEarlyWaitsForTheAgreement) {
  World world(1, Allowing());
  const auto client = world.Connect();
  world.Ask(*client, std::string(kAsk) + "early");
  world.Ask(*client, " bird");
  EXPECT_EQ(Heard(world), "");
  world.backends[0]->Say(kAgreed);
  world.Run();
  EXPECT_EQ(Heard(world), "early bird");
}

TEST(Tunnel, OnlySoMuchWaits) {
  World world(1, Allowing());
  world.network.link_options.window_bytes = 1000;
  const auto client = world.Connect();
  const std::string much(500'000, 'x');
  client->stream->Write(std::string(kAsk) + much);
  world.Run();
  EXPECT_GT(client->stream->buffered(), 300'000u);   // We stopped reading.
  world.backends[0]->Say(kAgreed);
  world.Run();
  EXPECT_EQ(Heard(world).size(), much.size());
}

TEST(Tunnel, AnotherAnswerIsAnAnswerAndTheNextRequestARequest) {
  World world(1, Allowing());
  const auto client = world.Connect();
  world.Ask(*client, std::string(kAsk) + "GET /next HTTP/1.1\r\nHost: api\r\n\r\n");
  world.backends[0]->answer = Ok("second");
  world.backends[0]->Say("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno");
  world.Run();
  const std::string answers = client->Take();
  EXPECT_EQ(StatusOf(answers), 403);
  EXPECT_TRUE(answers.ends_with("second")) << answers;
  EXPECT_TRUE(world.backends[0]->last_request.starts_with("GET /next HTTP/1.1\r\n"));
}

TEST(Tunnel, IsNotAskedForWhereThePoolDoesNotAllowIt) {
  struct Case {
    std::string request;
    bool allowed;
  };
  for (const Case& c : {Case{std::string(kAsk), false},
                        {"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n", true},
                        {"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n", true},
                        {"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"
                         "Upgrade: h2c\r\n\r\n", true},
                        {"POST / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"
                         "Content-Length: 1\r\n\r\nx", true}}) {
    World world(1, c.allowed ? Allowing() : config::Pool{});
    world.backends[0]->answer = Ok("plain");
    const auto client = world.Connect();
    EXPECT_EQ(StatusOf(world.Ask(*client, c.request)), 200);
    const std::string request = world.backends[0]->last_request;
    EXPECT_EQ(request.find("pgrade"), std::string::npos) << request;
    EXPECT_EQ(StatusOf(world.Ask(*client, "GET /again HTTP/1.1\r\nHost: a\r\n\r\n")), 200);
  }
}

TEST(Tunnel, A101ThatNobodyAskedForIs502) {
  for (const bool asked : {false, true}) {
    World world(1, Allowing());
    world.backends[0]->answer = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: other\r\nConnection: Upgrade\r\n\r\nevil";
    const auto client = world.Connect();
    client->stream->Write(asked ? std::string(kAsk) : "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    world.Wait(100 * kMillisecond);  // A retry waits for a moment.
    const std::string answer = client->Take();
    EXPECT_EQ(StatusOf(answer), 502) << asked;
    EXPECT_EQ(answer.find("evil"), std::string::npos);
  }
}

TEST(Tunnel, EndsWhenEitherSideDoes) {
  for (const bool client_first : {true, false}) {
    World world(1, Allowing());
    const auto client = world.Connect();
    world.Ask(*client, kAsk);
    world.backends[0]->Say(kAgreed);
    world.Run();
    client->Take();
    auto& conn = *world.backends[0]->conns.back();
    if (client_first) {
      client->stream->Write("bye");
      client->stream->Shutdown();
      world.Run();
      EXPECT_EQ(conn.heard, "bye");
      EXPECT_TRUE(conn.ended);           // It heard of the end, and may still answer.
      conn.stream->Write("and bye");
      conn.stream->Shutdown();
    } else {
      conn.stream->Write("and bye");
      conn.stream->Shutdown();
    }
    world.Run();
    EXPECT_EQ(client->Take(), "and bye");
    EXPECT_TRUE(client->ended);
    world.Wait(5 * kSecond);
    EXPECT_EQ(world.sessions->size(), 0u);
    EXPECT_EQ(world.pool().cells.requests[CodeIndex(101)][0].value(), 1);
  }
}

TEST(Tunnel, IsCutWhenNothingMovesForTooLong) {
  World world(1, Allowing());
  const auto client = world.Connect();
  world.Ask(*client, kAsk);
  world.backends[0]->Say(kAgreed);
  world.Run();
  for (int i = 0; i < 3; ++i) {
    world.Wait(15 * kSecond);
    if (i % 2 == 0) {
      world.Ask(*client, "ping");
    } else {
      world.backends[0]->Say("pong");
      world.Run();
    }
    EXPECT_FALSE(client->closed());
  }
  world.Wait(25 * kSecond);
  EXPECT_TRUE(client->closed());
  EXPECT_TRUE(world.backends[0]->conns.back()->ended);
  EXPECT_EQ(world.pool().cells.timeouts[static_cast<size_t>(TimeoutKind::kTunnel)].value(), 1);
}

TEST(Tunnel, HoldsWhoeverSendsMoreThanTheOtherTakes) {
  World world(1, Allowing());
  const auto client = world.Connect();
  world.Ask(*client, kAsk);
  world.backends[0]->Say(kAgreed);
  world.Run();
  client->Take();
  auto& conn = *world.backends[0]->conns.back();
  const std::string much(4 << 20, 'x');
  client->stream->Pause();
  conn.stream->Write(much);
  conn.stream->Pause();
  client->stream->Write(much);
  world.Run();
  EXPECT_GT(conn.stream->buffered(), 1u << 20);
  EXPECT_GT(client->stream->buffered(), 1u << 20);
  client->stream->Resume();
  conn.stream->Resume();
  world.Run();
  EXPECT_EQ(client->heard.size(), much.size());
  EXPECT_EQ(conn.heard.size(), much.size());
}

TEST(Tunnel, OutlivesTheDrainOfWholeAnswers) {
  World world(1, Allowing());
  const auto client = world.Connect();
  world.Ask(*client, kAsk);
  world.backends[0]->Say(kAgreed);
  world.Run();
  world.context->draining = true;
  world.sessions->Drain(0);
  world.sessions->EndWhole();
  world.Ask(*client, "still");
  EXPECT_EQ(Heard(world), "still");
}

}  // namespace
}  // namespace penstock
