// Backends that are busy, unwell or have been tried, and the requests that wait for them.
#include <string>

#include <gtest/gtest.h>

#include "proxy/request/exchange.h"
#include "tests/proxy/request/world.h"

namespace penstock {
namespace {

constexpr std::string_view kBody = R"({"model":"m"})";
constexpr std::string_view kBusy =
    "HTTP/1.1 503 Service Unavailable\r\nretry-after: 2\r\ncontent-length: 4\r\n\r\nbusy";

config::Pool OneSlotEach(size_t backends) {
  config::Pool pool;
  for (size_t i = 0; i < backends; ++i) {
    config::Backend backend;
    backend.name = backend.address = "127.0.0.1:" + std::to_string(9001 + i);
    backend.max_requests = 1;
    pool.backends.push_back(backend);
  }
  return pool;
}

TEST(Busy, AnAnswerThatSaysSoSpeaksAgainstNoBackendEvenWhenItIsPassedOn) {
  World world;
  world.backends[0]->answer = kBusy;
  const auto client = world.Connect();
  for (int i = 0; i < 8; ++i) {
    // A body that is not kept cannot go elsewhere.
    const std::string answer = world.Ask(*client, Post("1234", "/v1/files"));
    EXPECT_EQ(StatusOf(answer), 503);
    EXPECT_TRUE(answer.ends_with("busy"));
    EXPECT_GT(StateOf(world, 0).rest_until(), world.network.now());
    world.Wait(3 * kSecond);
  }
  EXPECT_EQ(StateOf(world, 0).breaker.view().state, BreakerState::kClosed);
}

TEST(Busy, TheFirstMoveIsFreeAndFurtherOnesArePaidFromTheBudgetAndWaitFirst) {
  for (const bool spent : {false, true}) {
    World world(3);
    for (const auto& backend : world.backends) {
      backend->answer = "HTTP/1.1 429 Busy\r\nretry-after: 1\r\ncontent-length: 0\r\n\r\n";
    }
    if (spent) {
      while (world.pool().budget.TryBegin()) continue;
    }
    const uint32_t before = world.pool().budget.in_use();
    const auto client = world.Connect();
    std::string said = world.Ask(*client, Post(kBody));
    const auto asked = [&] {
      return world.backends[0]->requests + world.backends[1]->requests + world.backends[2]->requests;
    };
    EXPECT_EQ(asked(), 2);
    world.Wait(30 * kMillisecond);  // The longest first back-off.
    EXPECT_EQ(asked(), spent ? 2 : 3);
    EXPECT_EQ(world.pool().budget.in_use(), spent ? before : before + 1);
    said += client->Take();
    EXPECT_EQ(StatusOf(said), spent ? 429 : 0);  // Its own answer, or it waits for room.
    client->stream.reset();
    world.Run();
    EXPECT_EQ(world.pool().budget.in_use(), before);  // Back when the request is over.
    while (world.pool().budget.in_use() > 0) world.pool().budget.RetryEnded();
  }
}

TEST(Panic, AnAnswerOfABackendThatWasUnwellAllAlongIsWaitedFor) {
  World world;
  StateOf(world, 0).SetHealth(Health::kUnhealthy, world.network.now());
  world.Wait(kSecond);
  const auto client = world.Connect();
  world.Ask(*client, Post(kBody));
  world.Wait(20 * kSecond);
  EXPECT_EQ(client->heard, "");
  world.backends[0]->Say(Ok("late"));
  world.Run();
  EXPECT_TRUE(client->Take().ends_with("late"));
  EXPECT_EQ(world.backends[0]->requests, 1);
}

TEST(Panic, ABackendThatRecoversAndFallsIllAgainIsLeft) {
  World world;
  StateOf(world, 0).SetHealth(Health::kUnhealthy, world.network.now());
  world.Wait(kSecond);
  const auto client = world.Connect();
  world.Ask(*client, Post(kBody));
  StateOf(world, 0).SetHealth(Health::kHealthy, world.network.now());
  world.Wait(2 * kSecond);
  StateOf(world, 0).SetHealth(Health::kUnhealthy, world.network.now());
  world.Wait(2 * kSecond);
  EXPECT_NE(StatusOf(client->heard), 0);
}

TEST(Queue, ANewRequestDoesNotPassThoseThatWait) {
  World world(1, OneSlotEach(1));
  const auto first = world.Connect();
  const auto second = world.Connect();
  const auto third = world.Connect();
  world.Ask(*first, Post(R"({"model":"1"})"));
  world.Ask(*second, Post(R"({"model":"2"})"));
  ASSERT_EQ(world.pool().queue.size(), 1u);
  world.backends[0]->Say(Ok("fine"));
  world.Run();                                   // There is room, and the queue has not been looked at.
  world.Ask(*third, Post(R"({"model":"3"})"));
  world.Wait(20 * kMillisecond);
  EXPECT_TRUE(world.backends[0]->last_request.ends_with(R"({"model":"2"})"));
  EXPECT_EQ(world.pool().queue.size(), 1u);
  world.backends[0]->Say(Ok("fine"));
  world.Wait(20 * kMillisecond);
  EXPECT_TRUE(world.backends[0]->last_request.ends_with(R"({"model":"3"})"));
}

TEST(Queue, WhoFailedEverywhereDoesNotWaitForWhereItFailed) {
  config::Pool pool = OneSlotEach(1);
  pool.retry.attempts = 0;
  World world(1, pool);
  const auto client = world.Connect();
  world.Ask(*client, Post(kBody));
  StateOf(world, 0).Rest(world.network.now(), 4 * kSecond);
  world.Wait(2 * PoolTable::kRefresh);
  world.backends[0]->Reset();
  world.Wait(100 * kMillisecond);
  EXPECT_EQ(StatusOf(client->heard), 502) << client->heard;
  EXPECT_TRUE(world.pool().queue.empty());
}

TEST(Queue, OneThatCannotGoDoesNotHoldThoseBehindIt) {
  World world(2, OneSlotEach(2));
  const auto first = world.Connect();
  const auto second = world.Connect();
  world.Ask(*first, Post(R"({"model":"1"})"));
  world.Ask(*second, Post(R"({"model":"2"})"));
  ScriptedBackend& one = *world.backends[world.backends[0]->last_request.ends_with(R"({"model":"1"})") ? 0 : 1];
  one.Reset();                                   // The first waits for the other backend now.
  world.Wait(10 * kMillisecond);
  ASSERT_EQ(world.pool().queue.size(), 1u);
  const auto third = world.Connect();
  world.Ask(*third, Post(R"({"model":"3"})"));
  world.Wait(20 * kMillisecond);
  EXPECT_TRUE(one.last_request.ends_with(R"({"model":"3"})")) << one.last_request;
  EXPECT_EQ(world.pool().queue.size(), 1u);
}

TEST(Timeout, OfAnAnswerBeginsWhenTheWholeBodyHasBeenSent) {
  config::Pool pool;
  pool.timeouts.response = absl::Seconds(5);
  World world(1, pool);
  const auto client = world.Connect();
  world.Ask(*client, "PUT /files/1 HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\n");
  for (int i = 0; i < 10; ++i) {
    world.Wait(kSecond);
    world.Ask(*client, "x");
  }
  world.Wait(4 * kSecond);
  EXPECT_EQ(client->heard, "");
  world.backends[0]->Say(Ok("kept"));
  world.Run();
  EXPECT_TRUE(client->heard.ends_with("kept"));
}

TEST(Answer, ToAHeadRequestHasNoBodyHoweverManyHeadsComeBeforeIt) {
  World world;
  const auto client = world.Connect();
  world.backends[0]->answer =
      "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n";
  for (int i = 0; i < 2; ++i) {
    const std::string answer = world.Ask(*client, "HEAD /files/1 HTTP/1.1\r\nhost: a\r\n\r\n");
    EXPECT_EQ(StatusOf(answer), 200);
    EXPECT_TRUE(answer.ends_with("\r\n\r\n"));
  }
  EXPECT_EQ(world.backends[0]->conns.size(), 1u);
}

}  // namespace
}  // namespace penstock
