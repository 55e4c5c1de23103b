// Results shared between requests: hits, followers, and who leads when one fails.
#include <string>

#include <gtest/gtest.h>

#include "proxy/request/exchange.h"
#include "tests/proxy/request/h2_client.h"
#include "tests/proxy/request/world.h"

namespace penstock {
namespace {

constexpr std::string_view kBody = R"({"model":"m","temperature":0})";
constexpr std::string_view kSame = R"({ "temperature":0, "model":"\u006d" })";
constexpr std::string_view kToken = "data: {\"choices\":[{\"text\":\"a\"}]}\n\n";

ResultCacheSettings Settings() {
  ResultCacheSettings settings;
  settings.name = "results";
  return settings;
}

struct CacheWorld : World {
  explicit CacheWorld(size_t backends = 1, const ResultCacheSettings& settings = Settings())
      : World(backends, {}, {}, &settings) {}
  int requests() const {
    int sum = 0;
    for (const auto& backend : backends) sum += backend->requests;
    return sum;
  }
};

bool Has(std::string_view answer, std::string_view text) {
  return answer.find(text) != std::string_view::npos;
}

TEST(SharedResult, IsReplayedToTheSameRequest) {
  CacheWorld world;
  world.backends[0]->answer = Ok("fine");
  const auto client = world.Connect();
  const std::string first = world.Ask(*client, Post(kBody));
  EXPECT_TRUE(Has(first, "cache-status: penstock; fwd=uri-miss; stored\r\n"));
  world.Wait(5 * kSecond);
  const std::string second = world.Ask(*client, Post(kSame));
  EXPECT_TRUE(Has(second, "cache-status: penstock; hit; ttl=595\r\n")) << second;
  EXPECT_TRUE(Has(second, "age: 5\r\n"));
  EXPECT_TRUE(Has(second, "content-type: application/json\r\n"));
  EXPECT_TRUE(second.ends_with("\r\n\r\nfine"));
  EXPECT_EQ(world.requests(), 1);
}

TEST(SharedResult, OfAStreamIsReplayedAsAStream) {
  CacheWorld world;
  const std::string body = R"({"model":"m","temperature":0,"stream":true})";
  world.backends[0]->answer = std::string(kEventsHead) + Chunk(kToken) + Chunk("data: [DONE]\n\n") + Chunk("");
  const auto client = world.Connect();
  world.Ask(*client, Post(body));
  const std::string second = world.Ask(*client, Post(body));
  EXPECT_TRUE(Has(second, "penstock; hit"));
  EXPECT_TRUE(Has(second, "content-type: text/event-stream\r\n"));
  EXPECT_TRUE(Has(second, kToken));
  EXPECT_TRUE(second.ends_with("0\r\n\r\n"));
  EXPECT_EQ(world.requests(), 1);
}

TEST(SharedResult, ThatIsLongReachesAClientWhoseSideTakesItAtOnce) {
  CacheWorld world;
  const std::string body(900'000, 'x');
  world.backends[0]->answer = Ok(body);
  const auto client = world.Connect();
  for (int i = 0; i < 2; ++i) EXPECT_TRUE(world.Ask(*client, Post(kBody)).ends_with(body));
  EXPECT_EQ(world.requests(), 1);
}

TEST(SharedResult, IsOnlyForRequestsThatAreDeterministic) {
  CacheWorld world;
  world.backends[0]->answer = Ok("fine");
  const auto client = world.Connect();
  for (int i = 0; i < 2; ++i) {
    EXPECT_TRUE(Has(world.Ask(*client, Post(R"({"model":"m"})")), "fwd=bypass; detail=not-deterministic"));
  }
  EXPECT_EQ(world.requests(), 2);
}

TEST(SharedResult, IsNotSharedBetweenKeys) {
  CacheWorld world;
  world.backends[0]->answer = Ok("fine");
  const auto client = world.Connect();
  for (const std::string key : {"one", "two"}) {
    world.Ask(*client, "POST /v1/completions HTTP/1.1\r\nhost: a\r\nauthorization: Bearer " + key +
                           "\r\ncontent-length: " + std::to_string(kBody.size()) + "\r\n\r\n" + std::string(kBody));
  }
  EXPECT_EQ(world.requests(), 2);
}

TEST(SharedResult, IsNotUsedWhileTheBackendsWeightsDisagree) {
  CacheWorld world;
  world.backends[0]->answer = Ok("fine");
  world.fleet->pools[0]->weights = kWeightsDisagree;
  const auto client = world.Connect();
  EXPECT_TRUE(Has(world.Ask(*client, Post(kBody)), "detail=weights-disagree"));
}

TEST(SharedResult, IsNoErrorsResult) {
  CacheWorld world;
  world.backends[0]->answer = "HTTP/1.1 400 Bad Request\r\ncontent-length: 2\r\n\r\nno";
  const auto client = world.Connect();
  for (int i = 0; i < 2; ++i) EXPECT_EQ(StatusOf(world.Ask(*client, Post(kBody))), 400);
  EXPECT_EQ(world.requests(), 2);
}

// The same request twice; whether the second one was answered from the first.
bool IsShared(std::string_view answer, std::string_view first, std::string_view second) {
  CacheWorld world;
  world.backends[0]->answer = answer;
  world.Ask(*world.Connect(), first);
  world.Ask(*world.Connect(), second);
  return world.requests() == 1;
}

std::string Stream(std::string_view events) {
  return std::string(kEventsHead) + Chunk(events) + Chunk("");
}

TEST(SharedResult, OfAStreamIsKeptOnlyIfItSaysThatItIsOver) {
  const std::string ask = Post(R"({"model":"m","temperature":0,"stream":true})");
  const std::string token(kToken);
  const std::string error = "data: {\"error\":{\"message\":\"no\"}}\n\n";
  const std::string done = "data: [DONE]\n\n";
  EXPECT_TRUE(IsShared(Stream(token + done), ask, ask));
  EXPECT_FALSE(IsShared(Stream(token), ask, ask));
  EXPECT_FALSE(IsShared(Stream(token + error), ask, ask));
  EXPECT_FALSE(IsShared(Stream(token + error + done), ask, ask));
  EXPECT_FALSE(IsShared(Stream(token + done + "data: {"), ask, ask));
}

TEST(SharedResult, IsKeptWhenItsClientLeavesAtDoneThoughTheMessageHasNotEnded) {
  const std::string ask = Post(R"({"model":"m","temperature":0,"stream":true})");
  for (const bool done : {true, false}) {
    CacheWorld world;
    std::string log;
    world.context->access_log = AccessLog::Into([&](std::string_view line) { log += line; });
    auto client = world.Connect();
    world.Ask(*client, ask);
    world.backends[0]->Say(std::string(kEventsHead) + Chunk(kToken) + (done ? Chunk("data: [DONE]\n\n") : ""));
    world.Run();
    client.reset();
    world.Run();
    EXPECT_TRUE(Has(log, "\"response_code\":200,")) << log;
    EXPECT_EQ(Has(log, "client_gone"), !done) << log;
    EXPECT_EQ(world.cache->stats().entries, done ? 1u : 0u);
    EXPECT_TRUE(world.backends[0]->conns[0]->ended);
  }
}

TEST(SharedResult, IsKeptThoughItsClientWhoseConnectionFailedIsLoggedAsGone) {
  CacheWorld world;
  std::string log;
  world.context->access_log = AccessLog::Into([&](std::string_view line) { log += line; });
  const auto client = world.Connect();
  world.Ask(*client, Post(R"({"model":"m","temperature":0,"stream":true})"));
  world.backends[0]->Say(std::string(kEventsHead) + Chunk(kToken) + Chunk("data: [DONE]\n\n"));
  world.Run();
  client->stream->Reset();
  world.Run();
  EXPECT_TRUE(Has(log, "client_gone")) << log;
  EXPECT_EQ(world.cache->stats().entries, 1u);
}

TEST(SharedResult, IsKeptThoughItsClientThatTookNothingOfItIsLoggedAsGone) {
  for (const uint32_t window : {0, 65'535}) {
    CacheWorld world;
    std::string log;
    world.context->access_log = AccessLog::Into([&](std::string_view line) { log += line; });
    CodecLimits limits;
    limits.h2.stream_window = window;
    H2Client client(world, limits);
    const MessageId id = client.Post(R"({"model":"m","temperature":0,"stream":true})");
    world.backends[0]->Say(std::string(kEventsHead) + Chunk(kToken) + Chunk("data: [DONE]\n\n"));
    world.Run();
    client.Reset(id);
    EXPECT_EQ(Has(log, "client_gone"), window == 0) << log;
    EXPECT_EQ(world.cache->stats().entries, 1u);
  }
}

TEST(SharedResult, IsKeptWhenTheLastOfItsReadersLeavesAtDone) {
  CacheWorld world;
  const std::string ask = Post(R"({"model":"m","temperature":0,"stream":true})");
  auto first = world.Connect();
  auto second = world.Connect();
  world.Ask(*first, ask);
  world.Ask(*second, ask);
  first.reset();
  world.Run();
  world.backends[0]->Say(std::string(kEventsHead) + Chunk(kToken) + Chunk("data: [DONE]\n\n"));
  world.Run();
  EXPECT_EQ(world.cache->stats().entries, 0u);
  second.reset();
  world.Run();
  EXPECT_EQ(world.cache->stats().entries, 1u);
  EXPECT_TRUE(world.context->orphans.empty());
}

TEST(SharedResult, OfAnAnswerThatEndsWithItsConnectionIsNotKept) {
  CacheWorld world;
  world.backends[0]->answer = "HTTP/1.1 200 OK\r\n\r\nfine";
  world.backends[0]->close_after = true;
  const auto client = world.Connect();
  for (int i = 0; i < 2; ++i) EXPECT_TRUE(Has(world.Ask(*client, Post(kBody)), "fine"));
  EXPECT_EQ(world.requests(), 2);
}

TEST(SharedResult, IsNotOfAnAnswerThatIsPacked) {
  const std::string packed = "HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 2\r\n\r\n\x1f\x8b";
  EXPECT_FALSE(IsShared(packed, Post(kBody), Post(kBody)));
}

TEST(SharedResult, IsNotSharedBetweenQueriesNorCredentials) {
  const auto with = [](std::string_view field) {
    std::string text = Post(kBody);
    return text.insert(text.find("host:"), std::string(field) + "\r\n");
  };
  const std::string fine = Ok("fine");
  EXPECT_TRUE(IsShared(fine, Post(kBody, "/v1/completions?v=1"), Post(kBody, "/v1/completions?v=1")));
  EXPECT_FALSE(IsShared(fine, Post(kBody, "/v1/completions?v=1"), Post(kBody, "/v1/completions?v=2")));
  EXPECT_TRUE(IsShared(fine, with("x-color: red"), with("x-color: blue")));
  for (const std::string name : {"Authorization", "Api-Key", "X-API-Key", "Cookie", "OpenAI-Organization"}) {
    EXPECT_TRUE(IsShared(fine, with(name + ": one"), with(name + ": one"))) << name;
    EXPECT_FALSE(IsShared(fine, with(name + ": one"), with(name + ": two"))) << name;
    EXPECT_FALSE(IsShared(fine, with(name + ": one"), Post(kBody))) << name;
  }
}

TEST(Follower, OfAnErrorGetsItWholeAndItIsNotKept) {
  CacheWorld world;
  const auto first = world.Connect();
  const auto second = world.Connect();
  world.Ask(*first, Post(kBody));
  world.Ask(*second, Post(kBody));
  world.backends[0]->Say("HTTP/1.1 400 Bad Request\r\ncontent-length: 2\r\n\r\n");
  world.Run();
  world.backends[0]->Say("no");
  world.Run();
  EXPECT_TRUE(first->heard.ends_with("no"));
  EXPECT_EQ(StatusOf(second->heard), 400);
  EXPECT_TRUE(second->heard.ends_with(Chunk("no") + Chunk(""))) << second->heard;
  EXPECT_EQ(world.cache->stats().entries, 0u);
  EXPECT_EQ(world.requests(), 1);
}

TEST(Follower, JoinsTheSameRequestInProgress) {
  CacheWorld world;
  const auto first = world.Connect();
  const auto second = world.Connect();
  world.Ask(*first, Post(kBody));
  world.Ask(*second, Post(kSame));
  EXPECT_EQ(world.requests(), 1);
  world.backends[0]->Say("HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nfin");
  world.Run();
  EXPECT_TRUE(first->heard.ends_with("fin"));
  EXPECT_TRUE(Has(second->heard, "fwd=uri-miss; collapsed"));
  EXPECT_TRUE(second->heard.ends_with(Chunk("fin")));
  world.backends[0]->Say("al\n");
  world.Run();
  EXPECT_TRUE(first->heard.ends_with("final\n"));
  EXPECT_TRUE(second->heard.ends_with(Chunk("al\n") + Chunk("")));
  EXPECT_EQ(StatusOf(world.Ask(*second, Post(kBody))), 200);
}

TEST(Follower, LeadsWhenTheOneThatLedLeftBeforeItsAnswer) {
  CacheWorld world(2);
  auto first = world.Connect();
  const auto second = world.Connect();
  const auto third = world.Connect();
  world.Ask(*first, Post("{"));
  world.network.black_holes.insert(world.backends[0]->address);
  world.network.black_holes.insert(world.backends[1]->address);
  world.Ask(*first, Post(kBody));
  world.Ask(*second, Post(kBody));
  world.Ask(*third, Post(kBody));
  world.network.black_holes.clear();
  first.reset();
  world.Run();
  EXPECT_EQ(world.requests(), 1);
  for (const auto& backend : world.backends) {
    if (backend->requests > 0) {
      EXPECT_TRUE(backend->last_request.ends_with(kBody));
      backend->Say(Ok("fine"));
    }
  }
  world.Run();
  EXPECT_TRUE(second->heard.ends_with("fine"));
  EXPECT_TRUE(Has(third->heard, "fine"));
}

TEST(Follower, LeadsWhenTheOneThatLedFails) {
  config::Pool pool;
  const ResultCacheSettings settings = Settings();
  pool.retry.attempts = 0;
  World world(3, pool, {}, &settings);
  const auto first = world.Connect();
  const auto second = world.Connect();
  world.Ask(*first, Post(kBody));
  world.Ask(*second, Post(kBody));
  for (int i = 0; i < 2; ++i) {
    for (const auto& backend : world.backends) {
      if (backend->requests > 0 && !backend->conns.back()->ended) {
        backend->Reset();
        break;
      }
    }
    world.Run();
  }
  EXPECT_EQ(StatusOf(first->Take()), 502);
  for (const auto& backend : world.backends) {
    if (backend->requests > 0 && !backend->conns.back()->ended) backend->Say(Ok("fine"));
  }
  world.Run();
  EXPECT_TRUE(second->heard.ends_with("fine"));
}

TEST(Follower, IsServedToTheEndAfterTheOneThatLedHasLeft) {
  CacheWorld world;
  auto first = world.Connect();
  const auto second = world.Connect();
  world.Ask(*first, Post(kBody));
  world.Ask(*second, Post(kBody));
  first.reset();
  world.Run();
  EXPECT_FALSE(world.backends[0]->conns[0]->ended);
  EXPECT_EQ(world.context->orphans.size(), 1u);
  world.backends[0]->Say(Ok("fine"));
  world.Run();
  EXPECT_TRUE(Has(second->heard, "fine"));
  EXPECT_TRUE(world.context->orphans.empty());
  EXPECT_TRUE(Has(world.Ask(*second, Post(kBody)), "fine"));
  EXPECT_EQ(world.requests(), 1);
}

TEST(Follower, WhenTheLastHasLeftTheBackendIsToldToStop) {
  CacheWorld world;
  auto first = world.Connect();
  auto second = world.Connect();
  world.Ask(*first, Post(kBody));
  world.Ask(*second, Post(kBody));
  first.reset();
  world.Run();
  second.reset();
  world.Run();
  world.backends[0]->Say("HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nfin");
  world.Run();
  EXPECT_TRUE(world.backends[0]->conns[0]->ended);
  EXPECT_TRUE(world.context->orphans.empty());
}

TEST(Follower, AndTheOneThatLedAreLoggedAsGoneWhenBothHaveLeft) {
  CacheWorld world;
  std::string lines;
  world.context->access_log = AccessLog::Into([&](std::string_view line) { lines += line; });
  auto first = world.Connect();
  auto second = world.Connect();
  world.Ask(*first, Post(kBody));
  world.Ask(*second, Post(kBody));
  first.reset();
  world.Run();
  EXPECT_EQ(lines, "");  // It still leads.
  second.reset();
  world.Run();
  for (const std::string_view cache : {"joined", "miss"}) {
    const size_t at = lines.find("\"cache\":\"" + std::string(cache));
    ASSERT_NE(at, std::string::npos) << lines;
    const std::string line = lines.substr(at, lines.find('\n', at) - at);
    EXPECT_TRUE(Has(line, "\"response_flags\":\"DC\",\"response_code_details\":\"client_gone\"")) << line;
    EXPECT_TRUE(Has(line, "\"response_code\":499,")) << line;
  }
}

TEST(Follower, ThatWasToLeadAndLeavesInsteadLeavesNoFlightBehind) {
  CacheWorld world;
  world.network.black_holes.insert(world.backends[0]->address);
  auto first = world.Connect();
  auto second = world.Connect();
  world.Ask(*first, Post(kBody));
  world.Ask(*second, Post(kBody));
  EXPECT_EQ(world.cache->stats().flights, 1u);
  first.reset();   // The second one is told to lead, and has no time to.
  second.reset();
  world.Run();
  EXPECT_EQ(world.cache->stats().flights, 0u);
}

TEST(Follower, IsNotHeldToTheDeadlineOfOneThatLedAndHasLeft) {
  CacheWorld world;
  auto first = world.Connect();
  const auto second = world.Connect();
  world.Ask(*first, "POST /v1/completions HTTP/1.1\r\nhost: a\r\nx-request-timeout-ms: 1000\r\ncontent-length: " +
                        std::to_string(kBody.size()) + "\r\n\r\n" + std::string(kBody));
  world.Ask(*second, Post(kBody));
  world.backends[0]->Say("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nfi");
  world.Run();
  first.reset();
  world.Wait(2 * kSecond);
  world.backends[0]->Say("ne");
  world.Run();
  EXPECT_TRUE(second->heard.ends_with(Chunk("ne") + Chunk(""))) << second->heard;
}

TEST(Follower, OfAnAnswerThatBreaksOffIsCutToo) {
  CacheWorld world;
  const auto first = world.Connect();
  const auto second = world.Connect();
  world.Ask(*first, Post(kBody));
  world.Ask(*second, Post(kBody));
  world.backends[0]->Say("HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nfin");
  world.Run();
  world.backends[0]->Reset();
  world.Wait(kSecond);
  EXPECT_TRUE(first->closed());
  EXPECT_TRUE(second->closed());
  EXPECT_FALSE(second->heard.ends_with("0\r\n\r\n"));
  EXPECT_EQ(world.cache->stats().entries, 0u);
}

TEST(SharedResult, ThatIsLongReachesAClientOfHttp2Whole) {
  ResultCacheSettings settings = Settings();
  settings.max_entry_bytes = 8 << 20;
  CacheWorld world(1, settings);
  const std::string body(3 << 20, 'x');
  world.backends[0]->answer = Ok(body);
  const auto first = world.Connect();
  EXPECT_TRUE(world.Ask(*first, Post(kBody)).ends_with(body));
  H2Client client(world);
  const MessageId id = client.Post(kBody);
  world.Run();
  EXPECT_EQ(client.of(id).resets, 0);
  EXPECT_EQ(client.of(id).body.size(), body.size());
  EXPECT_EQ(client.of(id).ends, 1);
  EXPECT_EQ(world.requests(), 1);
}

TEST(SharedResult, ThatIsLongWaitsForAClientOfHttp2InSmallPart) {
  ResultCacheSettings settings = Settings();
  settings.max_entry_bytes = 8 << 20;
  CacheWorld world(1, settings);
  const std::string body(3 << 20, 'x');
  world.backends[0]->answer = Ok(body);
  const auto first = world.Connect();
  world.Ask(*first, Post(kBody));
  first->Take();
  const auto client = world.Connect();
  client->stream->Write(h2::Hello({{4, 0}}) + h2::WindowUpdate(0, 1 << 28) +
                        h2::Headers(1, h2::Post("/v1/completions"), 0) + h2::Data(1, kBody, h2::kEndStream));
  world.Run();
  client->Take();
  client->stream->Write(h2::WindowUpdate(1, 1 << 28));
  world.Run();
  EXPECT_GT(client->Take().size(), body.size());
}

// From the next step on the proxy's loop has no room for a task, until it has run what is there.
void FillLoop(World& world) {
  world.inside.Post([&world] {
    while (world.inside.Post([] {})) {
    }
  });
}

TEST(Follower, FindsTheAnswerThoughItsLoopHadNoRoomForTheWord) {
  CacheWorld world;
  const auto leads = world.Connect();
  const auto follows = world.Connect();
  world.Ask(*leads, Post(kBody));
  world.Ask(*follows, Post(kBody));
  FillLoop(world);
  world.backends[0]->Say(Ok("fine"));
  world.Run();
  EXPECT_TRUE(leads->heard.ends_with("fine"));
  EXPECT_EQ(follows->heard, "");
  world.Wait(kSecond);
  EXPECT_TRUE(Has(follows->heard, "fine"));
}

TEST(Follower, WhenTheLastHasLeftUnheardTheBackendIsToldToStopAllTheSame) {
  CacheWorld world;
  auto first = world.Connect();
  auto second = world.Connect();
  world.Ask(*first, Post(kBody));
  world.Ask(*second, Post(kBody));
  first.reset();
  world.Run();
  FillLoop(world);
  second.reset();
  world.Run();
  EXPECT_EQ(world.context->orphans.size(), 1u);
  world.Wait(kSecond);
  EXPECT_TRUE(world.context->orphans.empty());
  EXPECT_TRUE(world.backends[0]->conns[0]->ended);
}

}  // namespace
}  // namespace penstock
