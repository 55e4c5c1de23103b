// How an exchange chooses a backend, and goes elsewhere.
#include <charconv>
#include <set>
#include <string>

#include <gtest/gtest.h>

#include "proxy/request/exchange.h"
#include "tests/proxy/request/world.h"

namespace penstock {
namespace {

constexpr std::string_view kBody = R"({"model":"m"})";
constexpr std::string_view kStream = R"({"model":"m","stream":true})";
constexpr std::string_view kToken = "data: {\"choices\":[{\"text\":\"a\"}]}\n\n";

ScriptedBackend& Other(World& world, const ScriptedBackend& one) {
  return world.backends[0].get() == &one ? *world.backends[1] : *world.backends[0];
}

config::Pool WithOneSlotEach(uint32_t queue_max = 10) {
  config::Pool pool;
  for (const char* const address : {"127.0.0.1:9001", "127.0.0.1:9002"}) {
    config::Backend backend;
    backend.name = backend.address = address;
    backend.max_requests = 1;
    pool.backends.push_back(backend);
  }
  pool.queue.max = queue_max;
  return pool;
}

int64_t Retries(World& world, RetryReason reason) {
  return world.pool().cells.retries[static_cast<size_t>(reason)].value();
}

TEST(Elsewhere, GoesOnceForFreeWhenTheConnectionDies) {
  config::Pool pool;
  pool.retry.attempts = 0;
  World world(3, pool);
  const auto client = world.Connect();
  world.Ask(*client, Post(kBody));
  int requests = 0;
  for (int i = 0; i < 2; ++i) {
    Holder(world).Reset();
    world.Run();
  }
  for (const auto& backend : world.backends) requests += backend->requests;
  EXPECT_EQ(requests, 2);
  EXPECT_EQ(StatusOf(client->Take()), 502);
  EXPECT_FALSE(client->closed());
}

TEST(Elsewhere, IsAnotherBackend) {
  World world(2);
  const auto client = world.Connect();
  world.Ask(*client, Post(kBody));
  ScriptedBackend& first = Holder(world);
  first.Reset();
  world.Run();
  ScriptedBackend& second = Other(world, first);
  EXPECT_EQ(second.requests, 1);
  EXPECT_TRUE(second.last_request.ends_with(kBody));
  second.Say(Ok("fine"));
  world.Run();
  EXPECT_EQ(StatusOf(client->Take()), 200);
  EXPECT_EQ(Retries(world, RetryReason::kReset), 1);
}

TEST(Elsewhere, IsWhereConnectionsAreTaken) {
  World world(2);
  world.backends[0]->Refuse();
  world.backends[1]->answer = Ok("fine");
  const auto client = world.Connect();
  for (int i = 0; i < 4; ++i) EXPECT_EQ(StatusOf(world.Ask(*client, Post(kBody))), 200);
}

TEST(Elsewhere, AReusedConnectionThatHadDiedIsNobodysFault) {
  World world;
  world.backends[0]->answer = Ok("fine");
  const auto client = world.Connect();
  world.Ask(*client, Post(kBody));
  world.backends[0]->answer.clear();
  world.Ask(*client, Post(kBody));
  ASSERT_EQ(world.backends[0]->conns.size(), 1u);
  world.backends[0]->answer = Ok("fresh");
  world.backends[0]->Reset();
  world.Run();
  EXPECT_TRUE(client->Take().ends_with("fresh"));
  EXPECT_EQ(world.backends[0]->conns.size(), 2u);
  EXPECT_EQ(world.fleet->pools[0]->Ejected(), 0u);
}

TEST(Elsewhere, NotWithABodyThatWasOnlyPassedOn) {
  World world(2);
  const auto client = world.Connect();
  world.Ask(*client, "POST /files HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\n1234");
  Holder(world).Reset();
  world.Run();
  EXPECT_EQ(StatusOf(client->Take()), 502);
  EXPECT_EQ(world.backends[0]->requests + world.backends[1]->requests, 1);
}

TEST(Elsewhere, WithABodyOfAnotherRequestAsFarAsItIsKept) {
  for (const size_t size : {size_t{4}, size_t{5}}) {
    config::Pool pool;
    pool.retry.body_bytes = 4;
    World world(2, pool);
    const auto client = world.Connect();
    world.Ask(*client, "POST /files HTTP/1.1\r\nhost: a\r\ncontent-length: " + std::to_string(size) + "\r\n\r\n12");
    world.Ask(*client, std::string_view("345").substr(0, size - 2));
    ScriptedBackend& first = Holder(world);
    ScriptedBackend& second = Other(world, first);
    second.answer = Ok("{}");
    first.Reset();
    world.Run();
    EXPECT_EQ(StatusOf(client->Take()), size == 4 ? 200 : 502);
    EXPECT_EQ(second.requests, size == 4 ? 1 : 0);
    if (size == 4) {
      EXPECT_TRUE(second.last_request.ends_with("\r\n\r\n1234")) << second.last_request;
    }
    EXPECT_EQ(world.totals.buffered_bytes, 0u);
  }
}

TEST(Elsewhere, AfterAGatewayErrorIfTheBudgetHasRoom) {
  World world(2);
  for (const auto& backend : world.backends) backend->answer = Ok("fine");
  world.backends[0]->answer = "HTTP/1.1 502 Bad Gateway\r\ncontent-length: 3\r\n\r\nbad";
  const auto client = world.Connect();
  const auto asked = [&] {
    client->stream->Write(Post(kBody));
    world.Wait(100 * kMillisecond);  // Longer than a first back-off.
    return StatusOf(client->Take());
  };
  for (int i = 0; i < 3; ++i) EXPECT_EQ(asked(), 200);
  EXPECT_GE(Retries(world, RetryReason::kStatus), 1);
  while (world.pool().budget.TryBegin()) continue;
  int bad = 0;
  for (int i = 0; i < 2; ++i) bad += asked() == 502;
  EXPECT_EQ(bad, 1);
}

TEST(Elsewhere, NeverAskedTwiceHoweverManyFail) {
  config::Pool pool;
  pool.retry.attempts = 10;
  pool.retry.budget_min = 100;
  World world(10, pool);
  for (const auto& backend : world.backends) {
    backend->answer = "HTTP/1.1 502 Bad Gateway\r\ncontent-length: 3\r\n\r\nbad";
  }
  const auto client = world.Connect();
  client->stream->Write(Post(kBody));
  world.Wait(5 * kSecond);
  EXPECT_EQ(StatusOf(client->Take()), 502);
  for (const auto& backend : world.backends) EXPECT_EQ(backend->requests, 1) << backend->address;
}

TEST(Probe, ThatStreamsForLongKeepsNobodyOut) {
  config::Pool pool;
  pool.circuit_breaker.panic_threshold = 0;
  World world(1, pool);
  const BreakerSettings settings(pool.circuit_breaker);
  world.fleet->pools[0]->backends[0]->state.breaker.Open(settings, BreakerCause::kConsecutive,
                                                         world.network.now(), 0);
  world.Wait(2 * kSecond);
  const auto first = world.Connect();
  const auto second = world.Connect();
  world.Ask(*first, Post(kStream));
  world.backends[0]->Say(kEventsHead);
  world.Run();
  EXPECT_EQ(StatusOf(world.Ask(*second, Post(kStream))), 503);
  world.backends[0]->Say(Chunk(kToken));
  world.Run();
  EXPECT_TRUE(first->heard.ends_with(Chunk(kToken)));
  world.Ask(*second, Post(kStream));
  EXPECT_EQ(world.backends[0]->requests, 2);
}

TEST(Elsewhere, WhenTheFirstTokenIsLateWhileTheHeadIsHeld) {
  config::Pool pool;
  pool.timeouts.sse_keep_alive = absl::ZeroDuration();
  World world(2, pool);
  const auto client = world.Connect();
  world.Ask(*client, Post(kStream));
  ScriptedBackend& first = Holder(world);
  first.Say(kEventsHead);
  world.Wait(59 * kSecond);
  EXPECT_EQ(client->heard, "");
  EXPECT_EQ(Other(world, first).requests, 0);
  world.Wait(2 * kSecond);
  ScriptedBackend& second = Other(world, first);
  ASSERT_EQ(second.requests, 1);
  EXPECT_TRUE(first.conns.back()->ended);
  second.Say(std::string(kEventsHead) + Chunk(kToken) + Chunk(""));
  world.Run();
  EXPECT_TRUE(client->Take().ends_with(Chunk(kToken) + Chunk("")));
}

TEST(Elsewhere, AtOnceWhenTheBackendIsFoundToBeGone) {
  World world(2);
  const auto client = world.Connect();
  world.Ask(*client, Post(kBody));
  ScriptedBackend& first = Holder(world);
  for (const auto& backend : world.fleet->pools[0]->backends) {
    if (backend->authority == first.address) backend->state.SetHealth(Health::kDown, world.network.now());
  }
  world.Wait(kSecond);
  EXPECT_EQ(Other(world, first).requests, 1);
}

TEST(Busy, GoesElsewhereAndLetsTheBackendRest) {
  World world(2);
  world.backends[0]->answer = "HTTP/1.1 429 Too Many Requests\r\nretry-after: 3\r\ncontent-length: 0\r\n\r\n";
  world.backends[1]->answer = Ok("fine");
  const auto client = world.Connect();
  for (int i = 0; i < 5; ++i) EXPECT_EQ(StatusOf(world.Ask(*client, Post(kBody))), 200);
  EXPECT_EQ(world.backends[0]->requests, 1);
  world.Wait(4 * kSecond);
  for (int i = 0; i < 2; ++i) world.Ask(*client, Post(kBody));
  EXPECT_EQ(world.backends[0]->requests, 2);
}

TEST(Queue, HoldsRequestsUntilABackendHasRoomFirstComeFirstServed) {
  World world(2, WithOneSlotEach());
  std::vector<std::unique_ptr<Peer>> clients;
  for (int i = 0; i < 4; ++i) {
    clients.push_back(world.Connect());
    world.Ask(*clients.back(), Post("{\"model\":\"" + std::to_string(i) + "\"}"));
  }
  EXPECT_EQ(world.pool().queue.size(), 2u);
  world.Wait(100 * kMillisecond);
  world.backends[0]->Say(Ok("fine"));
  world.Wait(10 * kMillisecond);
  EXPECT_EQ(world.pool().queue.size(), 1u);
  EXPECT_TRUE(world.backends[0]->last_request.ends_with("{\"model\":\"2\"}"));
  world.backends[0]->Say(Ok("fine"));
  world.Wait(10 * kMillisecond);
  EXPECT_TRUE(world.backends[0]->last_request.ends_with("{\"model\":\"3\"}"));
  EXPECT_TRUE(world.pool().queue.empty());
}

TEST(Queue, IsBounded) {
  World world(2, WithOneSlotEach(3));
  std::vector<std::unique_ptr<Peer>> clients;
  for (int i = 0; i < 6; ++i) clients.push_back(world.Connect());
  for (int i = 0; i < 5; ++i) EXPECT_EQ(world.Ask(*clients[i], Post(kBody)), "");
  const std::string answer = world.Ask(*clients[5], Post(kBody));
  EXPECT_EQ(StatusOf(answer), 429);
  EXPECT_NE(answer.find("retry-after: "), std::string::npos);
  EXPECT_NE(answer.find("x-should-retry: true\r\n"), std::string::npos);
  EXPECT_EQ(world.pool().queue.size(), 3u);
}

TEST(Queue, IsOneOfAllWorkersAndNobodyLosesAPlaceInIt) {
  World world(2, WithOneSlotEach(3));
  std::vector<std::unique_ptr<Peer>> clients;
  for (int i = 0; i < 4; ++i) clients.push_back(world.Connect());
  for (int i = 0; i < 2; ++i) world.Ask(*clients[i], Post(kBody));
  auto& queued = world.fleet->pools[0]->queued;
  queued += 2;                           // Of another worker.
  EXPECT_EQ(world.Ask(*clients[2], Post(kBody)), "");
  EXPECT_EQ(queued, 3u);
  EXPECT_EQ(StatusOf(world.Ask(*clients[3], Post(kBody))), 429);
  queued += 5;                           // Each looks for a backend again and again.
  world.Wait(kSecond);
  EXPECT_EQ(clients[2]->heard, "");
  queued -= 7;
  world.backends[0]->Say(Ok("{}"));
  world.Wait(kSecond);
  EXPECT_EQ(queued, 0u);
}

TEST(Queue, IsLeftWith429AfterItsWaitWheneverItBegan) {
  for (MonoTime phase = 0; phase < 20 * kMillisecond; phase += 1300) {
    World world(2, WithOneSlotEach());
    world.Wait(phase);
    std::vector<std::unique_ptr<Peer>> clients;
    for (int i = 0; i < 3; ++i) {
      clients.push_back(world.Connect());
      world.Ask(*clients.back(), Post(kStream));
    }
    world.Wait(29 * kSecond);
    EXPECT_EQ(clients[2]->heard, "");
    world.Wait(kSecond + 50 * kMillisecond);
    EXPECT_EQ(StatusOf(clients[2]->heard), 429) << phase;
  }
}

TEST(Queue, OfAPolicyFileThatIsGoneIsStillServed) {
  World world(2, WithOneSlotEach());
  std::vector<std::unique_ptr<Peer>> clients;
  for (int i = 0; i < 3; ++i) {
    clients.push_back(world.Connect());
    world.Ask(*clients.back(), Post(kBody));
  }
  world.context->snapshot = world.MakeSnapshot();
  world.Wait(kSecond);
  world.backends[0]->answer = Ok("fine");
  world.backends[0]->Say(Ok("fine"));
  world.Wait(kSecond);
  EXPECT_EQ(StatusOf(clients[2]->Take()), 200);
}

TEST(Timeout, OfConnectingIs504WhereNobodyElseIs) {
  World world;
  world.network.black_holes.insert(world.backends[0]->address);
  const auto client = world.Connect();
  world.Ask(*client, Post(kBody));
  world.Wait(900 * kMillisecond);
  EXPECT_EQ(client->heard, "");
  world.Wait(200 * kMillisecond);
  const std::string answer = client->Take();
  EXPECT_EQ(StatusOf(answer), 504);
  EXPECT_NE(answer.find("\"backend_connect_timeout\""), std::string::npos);
}

TEST(Timeout, OfAnAnswerIs504AndNotToBeRetried) {
  World world;
  const auto client = world.Connect();
  world.Ask(*client, Post(kBody));
  world.Wait(599 * kSecond);
  EXPECT_EQ(client->heard, "");
  world.Wait(2 * kSecond);
  const std::string answer = client->Take();
  EXPECT_EQ(StatusOf(answer), 504);
  EXPECT_NE(answer.find("x-should-retry: false\r\n"), std::string::npos);
  EXPECT_TRUE(world.backends[0]->conns[0]->ended);
  EXPECT_FALSE(client->closed());
}

TEST(Timeout, OfAnIdleStreamEndsIt) {
  World world;
  const auto client = world.Connect();
  world.Ask(*client, Post(kStream));
  world.backends[0]->Say(std::string(kEventsHead) + Chunk(kToken));
  for (int i = 0; i < 3; ++i) {
    world.Wait(59 * kSecond);
    world.backends[0]->Say(Chunk(kToken));
  }
  world.Wait(59 * kSecond);
  EXPECT_FALSE(client->closed());
  world.Wait(3 * kSecond);
  EXPECT_NE(client->heard.find("\"backend_idle_timeout\""), std::string::npos);
  EXPECT_TRUE(client->closed());
}

TEST(Timeout, OfTheFirstTokenIsNotPutOffByEventsWithoutOne) {
  World world;
  const auto client = world.Connect();
  world.Ask(*client, Post(kStream));
  world.backends[0]->Say(kEventsHead);
  for (int i = 0; i < 12 && !client->closed(); ++i) {
    world.backends[0]->Say(Chunk(": still here\n\n"));
    world.Wait(6 * kSecond);
  }
  EXPECT_NE(client->heard.find("data: {\"error\""), std::string::npos);
}

TEST(Timeout, OfAnEventStreamThatIsNoInferenceIsTheIdleOne) {
  World world;
  const auto client = world.Connect();
  world.Ask(*client, "GET /events HTTP/1.1\r\nhost: a\r\n\r\n");
  world.backends[0]->Say(kEventsHead);
  for (int i = 0; i < 20; ++i) {
    world.backends[0]->Say(Chunk("data: x\n\n"));
    world.Wait(50 * kSecond);
  }
  EXPECT_FALSE(client->closed());
  world.Wait(62 * kSecond);
  EXPECT_TRUE(client->closed());
}

TEST(Shortage, OfHealthyBackendsIs503) {
  World world;
  world.fleet->pools[0]->backends[0]->state.SetHealth(Health::kDown, world.network.now());
  const auto client = world.Connect();
  world.Wait(20 * kMillisecond);
  const std::string answer = world.Ask(*client, Post(kBody));
  EXPECT_EQ(StatusOf(answer), 503);
  EXPECT_NE(answer.find("pool main has no healthy backend"), std::string::npos);
  EXPECT_NE(answer.find("retry-after: "), std::string::npos);
}

TEST(Shortage, SpreadsWhenClientsComeAgain) {
  World world;
  world.fleet->pools[0]->backends[0]->state.SetHealth(Health::kDown, world.network.now());
  const auto client = world.Connect();
  world.Wait(20 * kMillisecond);
  std::set<int> waits;
  for (int i = 0; i < 40; ++i) {
    const std::string answer = world.Ask(*client, Post(kBody));
    const size_t at = answer.find("retry-after-ms: ");
    ASSERT_NE(at, std::string::npos);
    int wait = 0;
    std::from_chars(answer.data() + at + 16, answer.data() + answer.size(), wait);
    EXPECT_GE(wait, 1000);  // Never before the time that was computed ...
    EXPECT_LT(wait, 2000);  // ... and up to twice that.
    int seconds = 0;
    const size_t whole = answer.find("retry-after: ") + 13;
    std::from_chars(answer.data() + whole, answer.data() + answer.size(), seconds);
    EXPECT_GE(seconds * 1000, wait);  // Whoever reads whole seconds does not come before the others.
    EXPECT_LE(seconds * 1000, wait + 1000);
    waits.insert(wait);
    EXPECT_NE(answer.find("x-should-retry: true\r\n"), std::string::npos);
  }
  EXPECT_GT(waits.size(), 30u);
}

TEST(Answer, ThatIsNoHttpIs502) {
  World world;
  world.backends[0]->answer = "nonsense\r\n\r\n";
  const auto client = world.Connect();
  world.Ask(*client, Post(kBody));
  world.Wait(100 * kMillisecond);
  const std::string answer = client->Take();
  EXPECT_EQ(StatusOf(answer), 502);
  EXPECT_NE(answer.find("\"backend_bad_answer\""), std::string::npos);
}

}  // namespace
}  // namespace penstock
