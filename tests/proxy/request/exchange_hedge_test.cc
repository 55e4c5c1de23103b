// A second try beside a slow first one: who wins, what it costs, what is left of it.
#include <string>

#include <gtest/gtest.h>

#include "proxy/request/exchange.h"
#include "tests/proxy/request/world.h"

namespace penstock {
namespace {

constexpr std::string_view kStream = R"({"model":"m","stream":true})";
constexpr std::string_view kToken = "data: {\"choices\":[{\"text\":\"a\"}]}\n\n";
constexpr std::string_view kDone = "data: [DONE]\n\n";

config::Pool Hedged() {
  config::Pool pool;
  pool.hedge.enabled = true;
  pool.hedge.min_delay = absl::Milliseconds(100);
  return pool;
}

// A pool that has seen first tokens within about 50 ms.
struct HedgeWorld : World {
  explicit HedgeWorld(config::Pool settings = Hedged()) : World(2, std::move(settings)) {
    for (int i = 0; i < 40; ++i) pool().first_tokens.Add(50 * kMillisecond, network.now());
  }
  // Asks, and waits until the hedge is there.
  void Begin() {
    client = Connect();
    Ask(*client, Post(kStream));
    first = backends[0]->requests == 1 ? backends[0].get() : backends[1].get();
    second = backends[0].get() == first ? backends[1].get() : backends[0].get();
    EXPECT_EQ(second->requests, 0);
    Wait(200 * kMillisecond);
  }
  void Answer(ScriptedBackend& backend, std::string_view name) {
    backend.Say(std::string(kEventsHead) + Chunk(kToken) + Chunk("data: " + std::string(name) + "\n\n") +
                Chunk(kDone) + Chunk(""));
    Run();
  }
  int64_t Hedges(HedgeResult result) { return pool().cells.hedges[static_cast<size_t>(result)].value(); }
  MonoTime Latency(const ScriptedBackend& backend) {
    for (const auto& one : fleet->pools[0]->backends) {
      if (one->authority != backend.address) continue;
      return static_cast<MonoTime>(one->state.ttft(network.now()).seconds);
    }
    return 0;
  }
  std::unique_ptr<Peer> client;
  ScriptedBackend* first = nullptr;
  ScriptedBackend* second = nullptr;
};

TEST(Hedge, IsSentElsewhereWhenTheFirstTokenTakesLongerThanMost) {
  HedgeWorld world;
  world.Begin();
  EXPECT_EQ(world.second->requests, 1);
  EXPECT_FALSE(world.first->conns[0]->ended);
  EXPECT_EQ(world.pool().budget.in_use(), 1u);
  std::vector<std::string> records;
  world.context->decisions.Newest(2, records);
  EXPECT_NE(records[0].find("\"kind\":\"hedge\""), std::string::npos) << records[0];
  EXPECT_NE(records[1].find("\"kind\":\"first\""), std::string::npos) << records[1];
}

TEST(Hedge, ThatIsThereFirstWinsAndTheOtherIsCancelledAndNotBlamed) {
  HedgeWorld world;
  world.Begin();
  world.Answer(*world.second, "second");
  const std::string answer = world.client->Take();
  EXPECT_NE(answer.find("data: second\n\n"), std::string::npos);
  EXPECT_TRUE(world.first->conns[0]->ended);
  EXPECT_EQ(world.Hedges(HedgeResult::kWon), 1);
  EXPECT_EQ(world.Latency(*world.first), -1);
  EXPECT_EQ(world.pool().budget.in_use(), 0u);
}

TEST(Hedge, LosesToAFirstTryThatIsThereBeforeIt) {
  HedgeWorld world;
  world.Begin();
  world.Answer(*world.first, "first");
  EXPECT_NE(world.client->Take().find("data: first\n\n"), std::string::npos);
  EXPECT_TRUE(world.second->conns[0]->ended);
  EXPECT_EQ(world.Hedges(HedgeResult::kLost), 1);
  EXPECT_EQ(world.Latency(*world.second), -1);
}

TEST(Hedge, AHeadOrACommentDoesNotWin) {
  HedgeWorld world;
  world.Begin();
  world.first->Say(std::string(kEventsHead) + Chunk(": working\n\n"));
  world.Run();
  EXPECT_EQ(world.client->heard, "");
  world.Answer(*world.second, "second");
  const std::string answer = world.client->Take();
  EXPECT_NE(answer.find("data: second\n\n"), std::string::npos);
  EXPECT_EQ(answer.find("working"), std::string::npos);
}

TEST(Hedge, OneThatFailsLeavesTheOtherAlone) {
  for (const bool first_fails : {true, false}) {
    HedgeWorld world;
    world.Begin();
    (first_fails ? world.first : world.second)->Reset();
    world.Run();
    EXPECT_EQ(world.client->heard, "");
    world.Answer(first_fails ? *world.second : *world.first, "other");
    const std::string answer = world.client->Take();
    EXPECT_EQ(StatusOf(answer), 200);
    EXPECT_NE(answer.find("data: other\n\n"), std::string::npos);
    EXPECT_EQ(world.Hedges(first_fails ? HedgeResult::kWon : HedgeResult::kFailed), 1);
  }
}

TEST(Hedge, ABusyOrBrokenAnswerDoesNotWinWhileTheOtherMayDoBetter) {
  for (const char* const head : {"HTTP/1.1 429 Busy\r\nretry-after: 1\r\ncontent-length: 0\r\n\r\n",
                                 "HTTP/1.1 500 Broken\r\ncontent-length: 0\r\n\r\n"}) {
    HedgeWorld world;
    world.Begin();
    world.second->Say(head);
    world.Run();
    EXPECT_EQ(world.client->heard, "");
    world.Answer(*world.first, "first");
    EXPECT_EQ(StatusOf(world.client->Take()), 200);
  }
}

TEST(Hedge, WhenBothFailTheClientHearsOfItOnce) {
  HedgeWorld world;
  world.Begin();
  world.first->Reset();
  world.Run();
  world.second->Reset();
  world.Wait(kSecond);
  const std::string answer = world.client->Take();
  EXPECT_EQ(StatusOf(answer), 502);
  EXPECT_EQ(answer.find("HTTP/1.1", 1), std::string::npos);
}

TEST(Hedge, EndsAtBothBackendsWhenTheClientLeaves) {
  HedgeWorld world;
  world.Begin();
  world.client.reset();
  world.Run();
  EXPECT_TRUE(world.first->conns[0]->ended);
  EXPECT_TRUE(world.second->conns[0]->ended);
  EXPECT_EQ(world.pool().budget.in_use(), 0u);
}

TEST(Hedge, IsNotMadeWhenTheBudgetIsSpent) {
  HedgeWorld world;
  while (world.pool().budget.TryBegin()) continue;
  world.Begin();
  EXPECT_EQ(world.second->requests, 0);
  EXPECT_EQ(world.Hedges(HedgeResult::kNoBudget), 1);
}

TEST(Hedge, IsNotMadeWhereItIsOffOrTooLittleIsKnown) {
  config::Pool off = Hedged();
  off.hedge.enabled = false;
  HedgeWorld world(off);
  world.Begin();
  EXPECT_EQ(world.second->requests, 0);
  World young(2, Hedged());
  const auto client = young.Connect();
  young.Ask(*client, Post(kStream));
  young.Wait(20 * kSecond);
  EXPECT_EQ(young.backends[0]->requests + young.backends[1]->requests, 1);
}

}  // namespace
}  // namespace penstock
