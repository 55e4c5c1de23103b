// What a request may take: its client's deadline at every stage, the pool's limits,
// comments into silent streams.
#include <algorithm>
#include <charconv>
#include <string>

#include <gtest/gtest.h>

#include "proxy/request/exchange.h"
#include "tests/proxy/request/world.h"

namespace penstock {
namespace {

constexpr std::string_view kBody = R"({"model":"m"})";
constexpr std::string_view kStream = R"({"model":"m","stream":true})";
constexpr std::string_view kToken = "data: {\"choices\":[{\"text\":\"a\"}]}\n\n";
constexpr std::string_view kComment = ": keep-alive\n\n";

// A request whose client waits so long.
std::string Within(std::string_view body, std::string_view field) {
  std::string request = Post(body);
  request.insert(request.find("content-length"), std::string(field) + "\r\n");
  return request;
}

int64_t Deadlines(World& world, Stage stage) {
  return world.pool().cells.deadlines[static_cast<size_t>(stage)].value();
}
int64_t Timeouts(World& world, TimeoutKind kind) {
  return world.pool().cells.timeouts[static_cast<size_t>(kind)].value();
}

void ExpectDeadline(Peer& client) {
  const std::string answer = client.Take();
  EXPECT_EQ(StatusOf(answer), 504) << answer;
  EXPECT_NE(answer.find("\"deadline_exceeded\""), std::string::npos) << answer;
  EXPECT_NE(answer.find("x-should-retry: false\r\n"), std::string::npos);
}

config::Pool OneSlot() {
  config::Pool pool;
  config::Backend backend;
  backend.name = "only";
  backend.address = "127.0.0.1:9001";
  backend.max_requests = 1;
  pool.backends = {backend};
  return pool;
}

TEST(Deadline, WhileTheAnswerIsAwaited) {
  World world;
  const auto client = world.Connect();
  world.Ask(*client, Within(kBody, "x-request-timeout-ms: 2000"));
  EXPECT_NE(world.backends[0]->last_request.find("x-request-timeout-ms: 1990\r\n"), std::string::npos);
  world.Wait(1900 * kMillisecond);
  EXPECT_EQ(client->heard, "");
  world.Wait(150 * kMillisecond);
  ExpectDeadline(*client);
  EXPECT_EQ(Deadlines(world, Stage::kAnswer), 1);
  EXPECT_TRUE(world.backends[0]->conns[0]->ended);  // The backend is told to stop, and not blamed.
  EXPECT_EQ(world.fleet->pools[0]->backends[0]->state.ttft(world.network.now()).seconds, -1);
}

TEST(Deadline, WhileTheBodyArrives) {
  World world;
  const auto client = world.Connect();
  world.Ask(*client, "POST /v1/completions HTTP/1.1\r\nhost: a\r\ngrpc-timeout: 1S\r\ncontent-length: 9\r\n\r\n1");
  world.Wait(1100 * kMillisecond);
  ExpectDeadline(*client);
  EXPECT_EQ(world.context->no_pool.deadlines[static_cast<size_t>(Stage::kBody)].value(), 1);
}

TEST(Deadline, InTheQueue) {
  World world(1, OneSlot());
  const auto first = world.Connect();
  const auto second = world.Connect();
  world.Ask(*first, Post(kBody));
  world.Ask(*second, Within(kBody, "x-envoy-upstream-rq-timeout-ms: 1000"));
  EXPECT_EQ(world.pool().queue.size(), 1u);
  world.Wait(1100 * kMillisecond);
  ExpectDeadline(*second);
  EXPECT_TRUE(world.pool().queue.empty());
  EXPECT_EQ(Deadlines(world, Stage::kQueue), 1);
  EXPECT_EQ(world.backends[0]->requests, 1);  // Its work never began.
}

TEST(Deadline, WhileConnecting) {
  World world;
  world.network.black_holes.insert(world.backends[0]->address);
  const auto client = world.Connect();
  world.Ask(*client, Within(kBody, "x-request-timeout-ms: 300"));
  world.Wait(400 * kMillisecond);
  ExpectDeadline(*client);
  EXPECT_EQ(Deadlines(world, Stage::kConnect), 1);
}

TEST(Deadline, BeforeARetry) {
  World world(2);
  for (const auto& backend : world.backends) {
    backend->answer = "HTTP/1.1 502 Bad\r\ncontent-length: 0\r\n\r\n";
  }
  const auto client = world.Connect();
  // So short that it passes during the wait; which wait is by chance, so several times.
  int64_t found = 0;
  for (int i = 0; i < 200 && found == 0; ++i) {
    world.fleet->pools[0]->backends[0]->state.breaker.Force(BreakerForce::kClosed, world.network.now());
    world.fleet->pools[0]->backends[1]->state.breaker.Force(BreakerForce::kClosed, world.network.now());
    world.Ask(*client, Within(kBody, "x-request-timeout-ms: 1"));
    world.Wait(100 * kMillisecond);
    found = Deadlines(world, Stage::kBackOff);
    if (found > 0) ExpectDeadline(*client);
    client->Take();
  }
  EXPECT_EQ(found, 1);
  EXPECT_EQ(world.pool().budget.in_use(), 0u);
}

TEST(Deadline, WhileAnotherRequestsAnswerIsFollowed) {
  ResultCacheSettings cache;
  cache.name = "results";
  World world(1, {}, {}, &cache);
  constexpr std::string_view kKept = R"({"model":"m","temperature":0})";
  const auto first = world.Connect();
  const auto second = world.Connect();
  world.Ask(*first, Post(kKept));
  world.Ask(*second, Within(kKept, "x-request-timeout-ms: 1000"));
  EXPECT_EQ(world.backends[0]->requests, 1);
  world.Wait(1100 * kMillisecond);
  ExpectDeadline(*second);
  EXPECT_EQ(Deadlines(world, Stage::kShared), 1);
  EXPECT_FALSE(first->closed());
  world.backends[0]->Say(Ok("fine"));
  world.Run();
  EXPECT_EQ(StatusOf(first->Take()), 200);
}

TEST(Deadline, WhileTwoTriesRunEndsBoth) {
  config::Pool pool;
  pool.hedge.enabled = true;
  World world(2, pool);
  for (int i = 0; i < 40; ++i) world.pool().first_tokens.Add(50 * kMillisecond, world.network.now());
  const auto client = world.Connect();
  world.Ask(*client, Within(kStream, "x-request-timeout-ms: 2000"));
  world.Wait(kSecond);
  // The second one hears what is left by then.
  const int both = world.backends[0]->requests + world.backends[1]->requests;
  ASSERT_EQ(both, 2);
  int left[2];
  for (int i = 0; i < 2; ++i) {
    const std::string& asked = world.backends[static_cast<size_t>(i)]->last_request;
    const size_t at = asked.find("x-request-timeout-ms: ") + 22;
    std::from_chars(asked.data() + at, asked.data() + asked.size(), left[i]);
  }
  EXPECT_EQ(std::max(left[0], left[1]), 1990);
  EXPECT_LT(std::min(left[0], left[1]), 1990 - 90);
  world.Wait(1100 * kMillisecond);
  ExpectDeadline(*client);
  EXPECT_EQ(Deadlines(world, Stage::kAnswer), 1);
  for (const auto& backend : world.backends) EXPECT_TRUE(backend->conns[0]->ended);
  EXPECT_EQ(world.pool().budget.in_use(), 0u);
}

TEST(Deadline, OfAStreamInProgressEndsItWithAnErrorEvent) {
  World world;
  const auto client = world.Connect();
  world.Ask(*client, Within(kStream, "x-request-timeout-ms: 3000"));
  world.backends[0]->Say(std::string(kEventsHead) + Chunk(kToken));
  for (int i = 0; i < 20; ++i) {
    world.Wait(200 * kMillisecond);
    if (i < 14) world.backends[0]->Say(Chunk(kToken));
  }
  EXPECT_NE(client->heard.find("\"deadline_exceeded\""), std::string::npos);
  EXPECT_TRUE(client->closed());
  EXPECT_EQ(Deadlines(world, Stage::kStream), 1);
}

TEST(Deadline, OfAnSdkEndsWithTheWaitForTheFirstToken) {
  World world;
  const auto client = world.Connect();
  world.Ask(*client, Within(kStream, "x-stainless-read-timeout: 2.0"));
  EXPECT_EQ(world.backends[0]->last_request.find("x-request-timeout-ms"), std::string::npos);
  world.Wait(kSecond);
  world.backends[0]->Say(std::string(kEventsHead) + Chunk(kToken));
  world.Wait(10 * kSecond);
  EXPECT_FALSE(client->closed());
  const auto other = world.Connect();
  world.Ask(*other, Within(kStream, "x-stainless-read-timeout: 2.0"));
  world.Wait(2100 * kMillisecond);
  ExpectDeadline(*other);
}

TEST(Timeout, OfTheWholeRequestIsThePoolsTotal) {
  config::Pool pool;
  pool.timeouts.total = absl::Seconds(5);
  World world(1, pool);
  const auto client = world.Connect();
  world.Ask(*client, Within(kStream, "x-request-timeout-ms: 60000"));
  world.backends[0]->Say(std::string(kEventsHead) + Chunk(kToken));
  for (int i = 0; i < 6; ++i) {
    world.Wait(kSecond);
    if (i < 4) world.backends[0]->Say(Chunk(kToken));
  }
  EXPECT_NE(client->heard.find("\"total_timeout\""), std::string::npos);
  EXPECT_TRUE(client->closed());
  EXPECT_EQ(Timeouts(world, TimeoutKind::kTotal), 1);
}

TEST(Timeout, OfATryMovesTheRequestOnWhileOneWithoutAnotherBackendIsKept) {
  config::Pool pool;
  pool.retry.per_try_timeout = absl::Seconds(2);
  World world(2, pool);
  const auto client = world.Connect();
  world.Ask(*client, Post(kStream));
  ScriptedBackend& first = *world.backends[world.backends[0]->requests == 1 ? 0 : 1];
  ScriptedBackend& second = *world.backends[world.backends[0]->requests == 1 ? 1 : 0];
  world.Wait(3 * kSecond);
  EXPECT_EQ(second.requests, 1);
  EXPECT_TRUE(first.conns[0]->ended);
  EXPECT_EQ(Timeouts(world, TimeoutKind::kTry), 1);
  world.Wait(10 * kSecond);  // Its retries are used up: the second one is left its time.
  EXPECT_FALSE(second.conns[0]->ended);
  second.Say(std::string(kEventsHead) + Chunk(kToken) + Chunk(""));
  world.Run();
  EXPECT_EQ(StatusOf(client->Take()), 200);
}

TEST(Timeout, OfTheFirstTokenReplacesABackendThatOnlySendsComments) {
  config::Pool pool;
  pool.timeouts.first_token = absl::Seconds(5);
  pool.timeouts.sse_keep_alive = absl::ZeroDuration();
  World world(2, pool);
  const auto client = world.Connect();
  world.Ask(*client, Post(kStream));
  ScriptedBackend& first = *world.backends[world.backends[0]->requests == 1 ? 0 : 1];
  ScriptedBackend& second = *world.backends[world.backends[0]->requests == 1 ? 1 : 0];
  first.Say(kEventsHead);
  for (int i = 0; i < 10 && second.requests == 0; ++i) {
    if (!first.conns[0]->ended) first.Say(Chunk(": working\n\n"));
    world.Wait(kSecond);
  }
  ASSERT_EQ(second.requests, 1);
  second.Say(std::string(kEventsHead) + Chunk(kToken) + Chunk(""));
  world.Run();
  const std::string answer = client->Take();
  EXPECT_EQ(answer.find("working"), std::string::npos);
  EXPECT_TRUE(answer.ends_with(Chunk(kToken) + Chunk("")));
}

TEST(KeepAlive, IsSentIntoASilentStreamAndNeverInsideAnEvent) {
  World world;
  const auto client = world.Connect();
  world.Ask(*client, Post(kStream));
  world.backends[0]->Say(std::string(kEventsHead) + Chunk(kToken) + Chunk("data: ha"));
  world.Run();
  client->Take();
  world.Wait(14 * kSecond);
  EXPECT_EQ(client->heard, "");
  world.Wait(2 * kSecond);
  EXPECT_EQ(client->Take(), Chunk(kComment));
  world.backends[0]->Say(Chunk("lf\n\n"));
  world.Run();
  EXPECT_EQ(client->Take(), Chunk("data: half\n\n"));
}

TEST(KeepAlive, BridgesTheWaitForAFirstTokenAndLeavesTheWayElsewhereOpen) {
  World world(2);
  const auto client = world.Connect();
  world.Ask(*client, Post(kStream));
  ScriptedBackend& first = *world.backends[world.backends[0]->requests == 1 ? 0 : 1];
  ScriptedBackend& second = *world.backends[world.backends[0]->requests == 1 ? 1 : 0];
  first.Say(kEventsHead);
  world.Wait(14 * kSecond);
  EXPECT_EQ(client->heard, "");
  world.Wait(18 * kSecond);
  EXPECT_EQ(StatusOf(client->heard), 200);
  EXPECT_EQ(Count(client->heard, kComment), 2u);
  first.Reset();
  world.Run();
  ASSERT_EQ(second.requests, 1);
  second.Say(std::string(kEventsHead) + Chunk(kToken) + Chunk("data: [DONE]\n\n") + Chunk(""));
  world.Run();
  const std::string answer = client->Take();
  EXPECT_EQ(Count(answer, "HTTP/1.1"), 1u);
  EXPECT_TRUE(answer.ends_with(Chunk(kToken) + Chunk("data: [DONE]\n\n") + Chunk("")));
}

TEST(KeepAlive, IsNotSentBeforeABackendHasAcceptedNorIntoWholeAnswers) {
  for (const std::string_view body : {kBody, kStream}) {
    World world;
    const auto client = world.Connect();
    world.Ask(*client, Post(body));
    world.Wait(40 * kSecond);
    EXPECT_EQ(client->heard, "");
    world.backends[0]->Say("HTTP/1.1 400 Bad\r\ncontent-length: 0\r\n\r\n");
    world.Run();
    EXPECT_EQ(StatusOf(client->Take()), 400);
  }
}

TEST(KeepAlive, IsSentToThoseWhoFollowAnothersStreamToo) {
  ResultCacheSettings cache;
  cache.name = "results";
  constexpr std::string_view kKept = R"({"model":"m","temperature":0,"stream":true})";
  World world(1, {}, {}, &cache);
  const auto first = world.Connect();
  const auto second = world.Connect();
  world.Ask(*first, Post(kKept));
  world.Ask(*second, Post(kKept));
  EXPECT_EQ(world.backends[0]->requests, 1);
  world.Wait(16 * kSecond);
  EXPECT_EQ(second->heard, "");  // No backend has accepted it: an error may still have its status.
  world.backends[0]->Say(kEventsHead);
  world.Wait(16 * kSecond);
  EXPECT_EQ(StatusOf(second->heard), 200) << second->heard;
  EXPECT_NE(second->heard.find("content-type: text/event-stream\r\n"), std::string::npos);
  EXPECT_NE(second->heard.find("collapsed"), std::string::npos);
  EXPECT_EQ(Count(second->Take(), kComment), 1u);
  world.backends[0]->Say(Chunk(std::string(kToken) + "data: ha"));
  world.Run();
  EXPECT_EQ(second->Take(), Chunk(kToken));  // Behind the same head.
  world.Wait(14 * kSecond);
  EXPECT_EQ(second->heard, "");
  world.Wait(2 * kSecond);
  EXPECT_EQ(second->Take(), Chunk(kComment));
  world.backends[0]->Say(Chunk("lf\n\n") + Chunk("data: [DONE]\n\n") + Chunk(""));
  world.Run();
  EXPECT_TRUE(second->Take().ends_with(Chunk("data: [DONE]\n\n") + Chunk("")));
  // Comments are ours alone: who comes later gets the answer without them.
  const std::string replay = world.Ask(*second, Post(kKept));
  EXPECT_NE(replay.find("penstock; hit"), std::string::npos);
  EXPECT_EQ(Count(replay, kComment), 0u);
}

TEST(KeepAlive, OneWhoFollowedAndThenLeadsGoesOnBehindTheHeadOfItsComment) {
  ResultCacheSettings cache;
  cache.name = "results";
  constexpr std::string_view kKept = R"({"model":"m","temperature":0,"stream":true})";
  for (const bool error : {false, true}) {
    World world(2, {}, {}, &cache);
    auto first = world.Connect();
    const auto second = world.Connect();
    world.Ask(*first, Post(kKept));
    world.Ask(*second, Post(kKept));
    ScriptedBackend& old = *world.backends[world.backends[0]->requests == 1 ? 0 : 1];
    old.Say(kEventsHead);
    world.Wait(16 * kSecond);
    EXPECT_EQ(Count(second->heard, kComment), 1u);
    const std::string answer = error ? "HTTP/1.1 400 Bad\r\ncontent-length: 0\r\n\r\n"
                                     : std::string(kEventsHead) + Chunk(kToken) + Chunk("data: [DONE]\n\n") + Chunk("");
    for (const auto& backend : world.backends) backend->answer = answer;
    first.reset();         // It leaves, its backend breaks off: the other one leads.
    world.Run();
    old.Reset();
    world.Wait(kSecond);
    EXPECT_EQ(Count(second->heard, "HTTP/1.1"), 1u) << second->heard;
    EXPECT_EQ(Count(second->heard, "data: {\"error\":"), error ? 1u : 0u) << second->heard;
    EXPECT_EQ(second->closed(), error);
    if (!error) {
      EXPECT_TRUE(second->heard.ends_with(Chunk("data: [DONE]\n\n") + Chunk(""))) << second->heard;
    }
  }
}

TEST(KeepAlive, ABackendThatAnswersAnErrorToABegunStreamEndsItWithAnErrorEvent) {
  World world(2);
  const auto client = world.Connect();
  world.Ask(*client, Post(kStream));
  ScriptedBackend& first = *world.backends[world.backends[0]->requests == 1 ? 0 : 1];
  ScriptedBackend& second = *world.backends[world.backends[0]->requests == 1 ? 1 : 0];
  first.Say(kEventsHead);
  world.Wait(16 * kSecond);
  second.answer = "HTTP/1.1 400 Bad\r\ncontent-length: 0\r\n\r\n";
  first.Reset();
  world.Wait(kSecond);
  EXPECT_EQ(Count(client->heard, "HTTP/1.1"), 1u);
  EXPECT_NE(client->heard.find("data: {\"error\":"), std::string::npos);
  EXPECT_TRUE(client->closed());
}

}  // namespace
}  // namespace penstock
