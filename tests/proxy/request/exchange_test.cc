#include "proxy/request/exchange.h"

#include <algorithm>
#include <string>

#include <gtest/gtest.h>

#include "tests/proxy/request/world.h"
#include "tests/support/allocations.h"

namespace penstock {
namespace {

constexpr std::string_view kBody = R"({ "model" : "m", "top_p": 1.0e0, "x":"\u00e9" })";

int64_t Sum(const auto& cells) {
  int64_t sum = 0;
  for (const auto& cell : cells) sum += cell.value();
  return sum;
}

TEST(Exchange, RelaysARequestAndItsAnswerByteForByte) {
  World world;
  world.backends[0]->answer = "HTTP/1.1 201 Made\r\nContent-Length: 7\r\nX-Own: a b\r\nKeep-Alive: 9\r\n\r\nanswer\n";
  const auto client = world.Connect();
  const std::string answer = world.Ask(
      *client, "POST /v1/completions?a=b%20c HTTP/1.1\r\nHost: api:1\r\nX-Request-Id: me-1\r\n"
               "X-Mine:  odd value \r\nConnection: x-hop\r\nX-Hop: 1\r\nAccept-Encoding: gzip\r\nContent-Length: " +
                   std::to_string(kBody.size()) + "\r\n\r\n" + std::string(kBody));
  EXPECT_EQ(world.backends[0]->last_request,
            "POST /v1/completions?a=b%20c HTTP/1.1\r\nhost: api:1\r\nX-Mine: odd value\r\nx-request-id: me-1\r\n"
            "x-forwarded-for: 127.0.0.1\r\nx-forwarded-proto: http\r\naccept-encoding: identity\r\ncontent-length: " +
                std::to_string(kBody.size()) + "\r\n\r\n" + std::string(kBody));
  EXPECT_EQ(answer,
            "HTTP/1.1 201 Made\r\nX-Own: a b\r\nx-request-id: me-1\r\ncontent-length: 7\r\n\r\nanswer\n");
}

TEST(Exchange, MakesARequestIdWhereTheClientsIsMissingOrUnfit) {
  World world;
  world.backends[0]->answer = Ok("fine");
  const auto client = world.Connect();
  for (const std::string& field : {std::string(), std::string("x-request-id: a b\r\n"),
                                   "x-request-id: " + std::string(64, 'x') + "\r\n"}) {
    world.Ask(*client, "GET /x HTTP/1.1\r\nhost: a\r\n" + field + "\r\n");
    const std::string& request = world.backends[0]->last_request;
    const size_t at = request.find("x-request-id: ");
    ASSERT_NE(at, std::string::npos);
    EXPECT_EQ(request.find("\r\n", at) - at, 14u + 32u);
    EXPECT_EQ(request.find("x-request-id: ", at + 1), std::string::npos);
  }
}

TEST(Exchange, ReadsAChunkedPromptWholeAndSendsItWithItsLength) {
  World world;
  world.backends[0]->answer = Ok("fine");
  const auto client = world.Connect();
  world.Ask(*client, "POST /v1/completions HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n" +
                         Chunk(kBody.substr(0, 5)));
  EXPECT_EQ(world.backends[0]->requests, 0);
  EXPECT_EQ(StatusOf(world.Ask(*client, Chunk(kBody.substr(5)) + Chunk(""))), 200);
  EXPECT_TRUE(world.backends[0]->last_request.ends_with("content-length: " + std::to_string(kBody.size()) +
                                                        "\r\n\r\n" + std::string(kBody)));
}

TEST(Exchange, PassesOtherBodiesOnAsTheyCome) {
  World world;
  const auto client = world.Connect();
  world.Ask(*client, "PUT /files/1 HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n" + Chunk("one"));
  ASSERT_EQ(world.backends[0]->conns.size(), 1u);
  EXPECT_TRUE(world.backends[0]->conns[0]->heard.ends_with("\r\n\r\n" + Chunk("one")));
  world.Ask(*client, Chunk("two") + Chunk(""));
  EXPECT_TRUE(world.backends[0]->last_request.ends_with(Chunk("two") + Chunk("")));
  world.backends[0]->Say(Ok("kept"));
  world.Run();
  EXPECT_TRUE(client->heard.ends_with("kept"));
}

TEST(Exchange, RefusesABodyThatIsAnnouncedTooLong) {
  config::Server server;
  server.limits.request_body = 100;
  World world(1, {}, server);
  const auto client = world.Connect();
  const std::string answer =
      world.Ask(*client, "POST /v1/completions HTTP/1.1\r\nhost: a\r\ncontent-length: 101\r\n\r\n");
  EXPECT_EQ(StatusOf(answer), 413);
  EXPECT_NE(answer.find("the body has 101 bytes; up to 100 are taken (server.limits.request_body)"),
            std::string::npos);
  EXPECT_NE(answer.find("connection: close"), std::string::npos);
  EXPECT_TRUE(client->ended);
}

TEST(Exchange, RefusesAChunkedBodyThatGrowsTooLong) {
  config::Server server;
  server.limits.request_body = 100;
  World world(1, {}, server);
  const auto client = world.Connect();
  EXPECT_EQ(world.Ask(*client, "POST /v1/completions HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n" +
                                   Chunk(std::string(100, ' '))), "");
  EXPECT_EQ(StatusOf(world.Ask(*client, Chunk("x"))), 413);
}

TEST(Exchange, BoundsTheBodiesOfAllRequestsTogether) {
  config::Server server;
  server.limits.buffered_bytes = 100;
  World world(1, {}, server);
  auto first = world.Connect();
  const auto second = world.Connect();
  world.Ask(*first, "POST /v1/completions HTTP/1.1\r\nhost: a\r\ncontent-length: 90\r\n\r\n" + std::string(80, ' '));
  EXPECT_EQ(world.totals.buffered_bytes, 80u);
  const std::string answer = world.Ask(*second, Post(kBody));
  EXPECT_EQ(StatusOf(answer), 503);
  EXPECT_NE(answer.find("retry-after: "), std::string::npos);
  EXPECT_NE(answer.find("x-should-retry: false\r\n"), std::string::npos);
  first.reset();
  world.Run();
  EXPECT_EQ(world.totals.buffered_bytes, 0u);
}

TEST(Exchange, BoundsTheRequestsInProgress) {
  config::Server server;
  server.limits.requests = 1;
  World world(1, {}, server);
  const auto first = world.Connect();
  const auto second = world.Connect();
  world.Ask(*first, Post(kBody));
  const std::string answer = world.Ask(*second, Post(kBody));
  EXPECT_EQ(StatusOf(answer), 503);
  EXPECT_NE(answer.find("\"overloaded\""), std::string::npos);
  world.backends[0]->answer = Ok("fine");
  world.backends[0]->Say(Ok("fine"));
  world.Run();
  EXPECT_EQ(StatusOf(world.Ask(*first, Post(kBody))), 200);
}

TEST(Exchange, AnswersABodyThatIsNotJsonAndGoesOn) {
  World world;
  world.backends[0]->answer = Ok("fine");
  const auto client = world.Connect();
  const std::string answer = world.Ask(*client, Post("{\"model\":"));
  EXPECT_EQ(StatusOf(answer), 400);
  EXPECT_NE(answer.find("the body is not valid JSON"), std::string::npos);
  EXPECT_EQ(StatusOf(world.Ask(*client, Post(kBody))), 200);
}

TEST(Exchange, SaysWhichModelIsUnknown) {
  config::Pool pool;
  pool.models = {{"mine", {}}};
  World world(1, pool);
  const auto client = world.Connect();
  const std::string answer = world.Ask(*client, Post(R"({"model":"thine"})"));
  EXPECT_EQ(StatusOf(answer), 404);
  EXPECT_NE(answer.find(R"("param":"model")"), std::string::npos);
}

TEST(Exchange, AsksForAKeyWhereThePoolRequiresOne) {
  config::Pool pool;
  pool.auth.mode = config::AuthMode::kRequire;
  pool.auth.keys = {"one", "two"};
  World world(1, pool);
  world.backends[0]->answer = Ok("fine");
  const auto client = world.Connect();
  const auto ask = [&](const std::string& field) {
    return StatusOf(world.Ask(*client, "GET /x HTTP/1.1\r\nhost: a\r\n" + field + "\r\n"));
  };
  EXPECT_EQ(ask(""), 401);
  EXPECT_EQ(ask("authorization: Bearer thr\r\n"), 401);
  EXPECT_EQ(ask("authorization: Basic two\r\n"), 401);
  for (const char* const odd : {"", "Bearer", "Bearer ", "Bearer  two", "two", "Bearer two,two", "Bearer TWO",
                                "Bearer two x", "Bearer ' OR 1=1 --"}) {
    EXPECT_EQ(ask("authorization: " + std::string(odd) + "\r\n"), 401) << odd;
  }
  EXPECT_EQ(ask("authorization: Bearer " + std::string(50'000, 'x') + "\r\n"), 401);
  EXPECT_EQ(ask("authorization: Bearer two\r\nauthorization: Bearer thr\r\n"), 401);
  EXPECT_EQ(ask("authorization: Basic x\r\nauthorization: Bearer two\r\n"), 401);
  EXPECT_EQ(world.backends[0]->requests, 0);
  EXPECT_EQ(ask("Authorization: Bearer two\r\n"), 200);
  EXPECT_NE(world.backends[0]->last_request.find("Bearer two"), std::string::npos);
}

TEST(Exchange, PutsThePoolsKeyInThePlaceOfTheClients) {
  config::Pool pool;
  pool.auth.mode = config::AuthMode::kReplace;
  pool.auth.key = "ours";
  World world(1, pool);
  world.backends[0]->answer = Ok("fine");
  const auto client = world.Connect();
  world.Ask(*client, "GET /x HTTP/1.1\r\nhost: a\r\nauthorization: Bearer theirs\r\n\r\n");
  EXPECT_EQ(world.backends[0]->last_request.find("theirs"), std::string::npos);
  EXPECT_NE(world.backends[0]->last_request.find("authorization: Bearer ours\r\n"), std::string::npos);
}

TEST(Exchange, GivesUpOnABodyThatStopsArriving) {
  for (const std::string_view path : {"/v1/completions", "/files"}) {
    config::Server server;
    server.limits.request_body_rate = 0;
    World world(1, {}, server);
    const auto client = world.Connect();
    world.Ask(*client, "POST " + std::string(path) + " HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\n");
    world.Wait(29 * kSecond);
    world.Ask(*client, "1234");
    world.Wait(29 * kSecond);
    EXPECT_FALSE(client->closed());
    world.Wait(2 * kSecond);
    EXPECT_EQ(StatusOf(client->Take()), 408) << path;
    EXPECT_TRUE(client->ended);
    // It was the client's doing, and not held against the backend.
    EXPECT_EQ(world.fleet->pools[0]->backends[0]->state.ttft(world.network.now()).seconds, -1) << path;
  }
}

TEST(Exchange, GivesUpOnABodyThatTrickles) {
  for (const std::string_view path : {"/v1/completions", "/files"}) {
    for (const bool fast_enough : {false, true}) {
      World world;
      const auto client = world.Connect();
      world.Ask(*client, "POST " + std::string(path) + " HTTP/1.1\r\nhost: a\r\ncontent-length: 900000\r\n\r\n");
      for (int i = 0; i < 300 && !client->closed(); ++i) {
        world.Ask(*client, std::string(fast_enough ? 1100 : 900, ' '));
        world.Wait(kSecond);
      }
      if (fast_enough) {
        EXPECT_FALSE(client->closed()) << path;
        continue;
      }
      EXPECT_TRUE(client->ended) << path;
      const std::string answer = client->Take();
      EXPECT_EQ(StatusOf(answer), 408) << path;
      EXPECT_NE(answer.find("less than 1024 bytes a second (server.limits.request_body_rate)"), std::string::npos);
      EXPECT_EQ(world.fleet->pools[0]->backends[0]->state.ttft(world.network.now()).seconds, -1) << path;
    }
  }
}

// What a backend does not take in time is not the client's slowness.
TEST(Exchange, DoesNotHoldTheTimeInWhichItDidNotReadAgainstTheClient) {
  config::Server server;
  server.request_body_idle_timeout = absl::Seconds(5);
  World world(1, {}, server);
  world.network.link_options.window_bytes = 4096;
  world.network.link_options.high_mark = 4096;
  const auto client = world.Connect();
  world.Ask(*client, "POST /files HTTP/1.1\r\nhost: a\r\ncontent-length: 200000\r\n\r\n");
  ScriptedBackend& backend = *world.backends[0];
  ASSERT_EQ(backend.conns.size(), 1u);
  backend.answer = Ok("{}");
  for (int i = 0; i < 20; ++i) {
    backend.conns[0]->stream->Pause();
    world.Ask(*client, std::string(10000, ' '));
    world.Wait(4 * kSecond);
    backend.conns[0]->stream->Resume();
    world.Run();
    if (i < 19) world.Wait(3 * kSecond);
  }
  EXPECT_EQ(StatusOf(client->Take()), 200);
}

TEST(Exchange, GivesTheBackendsConnectionUpWhenTheClientLeaves) {
  World world;
  auto client = world.Connect();
  world.Ask(*client, Post(kBody));
  ASSERT_EQ(world.backends[0]->conns.size(), 1u);
  EXPECT_FALSE(world.backends[0]->conns[0]->ended);
  client.reset();
  world.Run();
  EXPECT_TRUE(world.backends[0]->conns[0]->ended);
  EXPECT_EQ(world.pool().cells.flags[static_cast<size_t>(Flag::kDC)].value(), 1);
  EXPECT_EQ(world.totals.requests, 0u);
}

TEST(Exchange, LeavesTheQueueWhenTheClientLeaves) {
  config::Pool pool;
  config::Backend backend;
  backend.name = "only";
  backend.address = "127.0.0.1:9001";
  backend.max_requests = 1;
  pool.backends = {backend};
  World world(1, pool);
  const auto first = world.Connect();
  auto second = world.Connect();
  world.Ask(*first, Post(kBody));
  world.Ask(*second, Post(kBody));
  EXPECT_EQ(world.pool().queue.size(), 1u);
  second.reset();
  world.Run();
  EXPECT_TRUE(world.pool().queue.empty());
  EXPECT_EQ(world.pool().cells.queued.value(), 0);
}

TEST(Exchange, TellsWhereItWentOnListenersThatAreToldTo) {
  World world;
  world.entrance->debug_headers = true;
  world.backends[0]->answer = Ok("fine");
  const auto client = world.Connect();
  const std::string answer = world.Ask(*client, Post(kBody));
  EXPECT_NE(answer.find("x-penstock-backend: b0\r\n"), std::string::npos);
  EXPECT_NE(answer.find("; attempt=1\r\n"), std::string::npos);
}

TEST(Exchange, CountsEachRequestOnce) {
  World world;
  world.backends[0]->answer = Ok("fine");
  const auto client = world.Connect();
  for (int i = 0; i < 3; ++i) world.Ask(*client, Post(kBody));
  world.Ask(*client, Post("{"));
  int64_t requests = 0, unrouted = 0;
  for (const auto& code : world.pool().cells.requests) requests += Sum(code);
  for (const auto& code : world.context->no_pool.requests) unrouted += Sum(code);
  EXPECT_EQ(requests, 3);
  EXPECT_EQ(unrouted, 1);
  EXPECT_EQ(world.pool().cells.active.value(), 0);
}

TEST(Exchange, AllocatesNothingAfterWarmUp) {
  World world;
  const std::string stream = std::string(kEventsHead) + Chunk("data: {\"choices\":[{\"text\":\"a\"}]}\n\n") +
                             Chunk("data: [DONE]\n\n") + Chunk("");
  for (const std::string& answer : {Ok("an answer of some length, more than a short string"), stream}) {
    world.backends[0]->answer = answer;
    const std::string request = Post(R"({"model":"m","stream":true,"prompt":"of some length, more than a few"})");
    const auto client = world.Connect();
    uint64_t before = 0;
    for (int i = 0; i < 60; ++i) {
      if (i == 20) before = AllocationCount();
      client->heard.clear();
      client->stream->Write(request);
      world.Run();
      ASSERT_TRUE(client->heard.starts_with("HTTP/1.1 200"));
    }
    EXPECT_EQ(AllocationCount() - before, 0u);
  }
}

}  // namespace
}  // namespace penstock
