// Requests of HTTP/1 clients at backends that speak HTTP/2.
#include <string>

#include <gtest/gtest.h>

#include "tests/proxy/request/h2_backends.h"

namespace penstock {
namespace {

constexpr std::string_view kEvent = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n";

TEST(H2Backend, AnswersAnHttp1Client) {
  World world(1, Http2Pool());
  H2Backends backends(world);
  const auto client = world.Connect();
  world.Ask(*client, Post(R"({"model":"m"})"));
  H2End& end = *backends.ends[0][0];
  const std::string head = end.peer.of(1).head;
  EXPECT_TRUE(head.starts_with("POST http /v1/completions path=/v1/completions authority=api body=length 13\n"));
  EXPECT_NE(head.find("x-request-id: "), std::string::npos);
  EXPECT_EQ(end.peer.of(1).body, R"({"model":"m"})");
  EXPECT_EQ(end.peer.of(1).ends, 1);
  end.Answer(1, "hello");
  world.Run();
  const std::string answer = client->Take();
  EXPECT_TRUE(answer.starts_with("HTTP/1.1 200 OK\r\n"));
  EXPECT_TRUE(answer.ends_with("5\r\nhello\r\n0\r\n\r\n"));
  world.Ask(*client, Post(R"({"model":"n"})"));
  EXPECT_EQ(end.peer.of(3).body, R"({"model":"n"})");
  end.Answer(3);
  world.Run();
}

TEST(H2Backend, StreamsItsEventsAsTheyCome) {
  World world(1, Http2Pool());
  H2Backends backends(world);
  const auto client = world.Connect();
  world.Ask(*client, Post(R"({"model":"m","stream":true})"));
  H2End& end = *backends.ends[0][0];
  end.Head(1, 200, "text/event-stream");
  for (int i = 0; i < 3; ++i) {
    end.Body(1, kEvent);
    world.Run();
    EXPECT_NE(client->Take().find(kEvent), std::string::npos) << i;
  }
  end.Reset(1, kInternalError);
  world.Run();
  EXPECT_NE(client->Take().find("data: {\"error\":"), std::string::npos);
  world.Wait(kSecond);
  EXPECT_TRUE(client->reset);
  EXPECT_FALSE(end.closed);
}

TEST(H2Backend, TakesABodyOfMegabytes) {
  World world(1, Http2Pool());
  H2Backends backends(world);
  const std::string body = R"({"model":"m","prompt":")" + std::string(5 << 20, 'x') + "\"}";
  const auto client = world.Connect();
  world.Ask(*client, Post(body));
  EXPECT_TRUE(backends.ends[0][0]->peer.of(1).body == body);
  backends.ends[0][0]->Answer(1);
  world.Run();
  EXPECT_EQ(StatusOf(client->heard), 200);
}

TEST(H2Backend, WhatAGoAwayPassedOverGoesAgainAndNothingIsHeldAgainstIt) {
  World world(1, Http2Pool());
  H2Backends backends(world);
  Clients clients(world, 10);
  ASSERT_EQ(backends.ends[0].size(), 1u);
  H2End& first = *backends.ends[0][0];
  first.GoAway(5);
  world.Run();
  ASSERT_EQ(backends.ends[0].size(), 2u);
  H2End& second = *backends.ends[0][1];
  EXPECT_EQ(second.peer.all().size(), 7u);
  for (MessageId id = 1; id <= 5; id += 2) first.Answer(id);
  for (MessageId id = 1; id <= 13; id += 2) second.Answer(id);
  world.Run();
  EXPECT_EQ(clients.Answered(200), 10u);
  EXPECT_TRUE(first.closed);
  EXPECT_EQ(world.pool().cells.retries[static_cast<size_t>(RetryReason::kRefused)].value(), 7);
  EXPECT_EQ(world.fleet->pools[0]->backends[0]->state.breaker.recorded(), 0u);
}

TEST(H2Backend, ABackendThatRefusesEveryStreamRestsAndTheQueueKeepsTheRequest) {
  World world(1, Http2Pool());
  H2Backends backends(world);
  const auto client = world.Connect();
  client->stream->Write(Post(R"({"model":"m"})"));
  world.Run();
  H2End& end = *backends.ends[0][0];
  for (MessageId id = 1; id <= 7; id += 2) {
    ASSERT_EQ(end.peer.of(id).ends, 1) << id;
    end.Reset(id, kRefusedStream);
    world.Run();
  }
  EXPECT_EQ(world.pool().queue.size(), 1u);
  EXPECT_EQ(world.fleet->pools[0]->backends[0]->state.breaker.recorded(), 0u);
  world.Wait(2 * kSecond);
  ASSERT_EQ(end.peer.of(9).ends, 1);
  end.Answer(9);
  world.Run();
  EXPECT_EQ(StatusOf(client->heard), 200);
}

TEST(H2Backend, ALostConnectionMovesItsRequestsAndIsOneFault) {
  World world(2, Http2Pool());
  H2Backends backends(world);
  Clients clients(world, 40);   // Round robin: 20 on each.
  ASSERT_EQ(backends.ends[0].size(), 1u);
  EXPECT_EQ(backends.ends[0][0]->peer.all().size(), 20u);
  backends.ends[0][0]->stream->Reset();
  world.Run();
  H2End& other = *backends.ends[1][0];
  EXPECT_EQ(other.peer.all().size(), 40u);
  for (MessageId id = 1; id <= 79; id += 2) other.Answer(id);
  world.Run();
  EXPECT_EQ(clients.Answered(200), 40u);
  const BackendState& state = world.fleet->pools[0]->backends[0]->state;
  EXPECT_EQ(state.breaker.view().state, BreakerState::kClosed);
  EXPECT_EQ(state.breaker.recorded(), 0u);
}

TEST(H2Backend, ABackendThatLosesEveryConnectionOpensItsBreaker) {
  config::Pool pool = Http2Pool();
  pool.circuit_breaker.consecutive_failures = 3;
  pool.circuit_breaker.panic_threshold = 0;
  World world(2, pool);
  H2Backends backends(world);
  backends.answers = true;
  for (int i = 0; i < 12; ++i) {
    Clients clients(world, 1);
    for (auto& end : backends.ends[0]) {
      if (!end->closed) end->stream->Reset(), end->closed = true;
    }
    world.Run();
  }
  const BackendState& state = world.fleet->pools[0]->backends[0]->state;
  EXPECT_EQ(state.breaker.view().state, BreakerState::kClosed);   // It answered first.
  backends.ends[0].clear();
  world.backends[0]->listener = *world.outside.Listen(
      *Address::Parse(world.backends[0]->address),
      [](std::unique_ptr<Stream> stream) { stream->Reset(); });
  for (int i = 0; i < 12; ++i) {
    Clients clients(world, 1);
    EXPECT_EQ(clients.Answered(200), 1u) << i;
  }
  EXPECT_EQ(state.breaker.view().state, BreakerState::kOpen);
}

TEST(H2Backend, AClientThatLeavesResetsItsStreamAlone) {
  World world(1, Http2Pool());
  H2Backends backends(world);
  Clients clients(world, 2, R"({"model":"m","stream":true})");
  H2End& end = *backends.ends[0][0];
  for (const MessageId id : {1u, 3u}) {
    end.Head(id, 200, "text/event-stream");
    end.Body(id, kEvent);
  }
  world.Run();
  clients.all[0]->stream->Reset();
  world.Run();
  EXPECT_EQ(end.peer.of(1).error_code, kCancel);
  EXPECT_EQ(end.peer.of(3).resets, 0);
  EXPECT_FALSE(end.closed);
  end.End(3);
  world.Run();
  EXPECT_TRUE(clients.all[1]->heard.ends_with("0\r\n\r\n"));
}

TEST(H2Backend, RequestsBeyondTheStreamsWaitAndAreAllAnswered) {
  config::Pool pool = Http2Pool();
  pool.connections.max_connections = 2;
  CodecLimits one;
  one.h2.concurrent_streams = 1;
  World world(1, pool);
  H2Backends backends(world, one);
  Clients clients(world, 6);
  ASSERT_EQ(backends.ends[0].size(), 2u);
  for (int round = 0; round < 3; ++round) {
    for (auto& end : backends.ends[0]) {
      for (const auto& [id, heard] : end->peer.all()) {
        if (heard.ends == 1 && heard.resets == 0) end->Answer(id, "{}");
      }
    }
    world.Wait(1500 * kMillisecond);   // Longer than one waits for a stream: the queue takes over.
  }
  EXPECT_EQ(clients.Answered(200), 6u);
  EXPECT_EQ(world.fleet->pools[0]->backends[0]->state.breaker.recorded(), 0u);
}

TEST(H2Backend, AsManyWaitForAStreamAsMayBeOpenThere) {
  config::Pool pool = Http2Pool();
  pool.connections.max_connections = 1;
  pool.backends.resize(1);
  pool.backends[0].name = "b0";
  pool.backends[0].address = "127.0.0.1:9001";
  pool.backends[0].max_requests = 4;
  pool.queue.max = 1;
  CodecLimits one;
  one.h2.concurrent_streams = 1;
  World world(1, pool);
  H2Backends backends(world, one);
  Clients clients(world, 6);
  EXPECT_EQ(world.pool().queue.size(), 1u);
  EXPECT_EQ(clients.Answered(429), 1u);
}

}  // namespace
}  // namespace penstock
