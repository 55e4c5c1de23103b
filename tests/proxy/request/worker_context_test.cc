#include "proxy/request/worker_context.h"

#include <memory>
#include <vector>

#include <gtest/gtest.h>

#include "proxy/request/exchange.h"
#include "tests/proxy/request/world.h"

namespace penstock {
namespace {

constexpr std::string_view kBody = R"({"model":"m"})";

TEST(WorkerContext, ReusesExchangesOnceTheTurnIsOver) {
  World world;
  WorkerContext& context = *world.context;
  std::unique_ptr<Exchange> exchange = context.TakeExchange();
  const Exchange* const place = exchange.get();
  {
    Turn::Scope scope(context.turn);
    context.Recycle(std::move(exchange));
    EXPECT_NE(context.TakeExchange().get(), place);
  }
  EXPECT_EQ(context.TakeExchange().get(), place);
}

TEST(WorkerContext, KeepsOneListOfConnectionsForEachBackend) {
  World world(2);
  const auto& backends = world.fleet->pools[0]->backends;
  ConnPool& first = world.context->Connections(backends[0], world.pool());
  EXPECT_EQ(&world.context->Connections(backends[0], world.pool()), &first);
  EXPECT_NE(&world.context->Connections(backends[1], world.pool()), &first);
}

TEST(WorkerContext, DropsIdleConnectionsToBackendsThatNoFileNames) {
  World world(2);
  for (const auto& backend : world.backends) backend->answer = Ok("fine");
  const auto client = world.Connect();
  for (int i = 0; i < 2; ++i) world.Ask(*client, Post(kBody));
  world.context->DropConnectionsOutside(*FleetOf({}, 1, world.fleet.get()));
  world.Run();
  EXPECT_FALSE(world.backends[0]->conns[0]->ended);
  EXPECT_TRUE(world.backends[1]->conns[0]->ended);
}

TEST(WorkerContext, LeavesConnectionsThatCarryARequest) {
  World world(1);
  const auto client = world.Connect();
  world.Ask(*client, Post(kBody));
  const auto other = std::make_shared<Fleet>();
  world.context->DropConnectionsOutside(*other);
  world.Run();
  EXPECT_FALSE(world.backends[0]->conns[0]->ended);
  world.backends[0]->Say(Ok("fine"));
  world.Run();
  EXPECT_TRUE(client->heard.ends_with("fine"));
  world.context->DropConnectionsOutside(*other);
  world.Run();
  EXPECT_TRUE(world.backends[0]->conns[0]->ended);
}

// Takes the place of the policy file in force.
void Adopt(World& world, std::shared_ptr<const Fleet> fleet) {
  world.context->DropConnectionsOutside(*fleet);
  world.context->snapshot = std::make_shared<Snapshot>(std::move(fleet));
}

TEST(WorkerContext, ConnectionsOfABackendThatIsGoneEndSoonAfterTheirLastRequest) {
  World world(1);
  const auto before = world.context->snapshot;
  const auto client = world.Connect();
  world.Ask(*client, Post(kBody));
  Adopt(world, FleetOf({}, 0));
  world.context->DropStrays();
  world.Run();
  EXPECT_FALSE(world.backends[0]->conns[0]->ended);
  world.backends[0]->Say(Ok("fine"));
  world.Run();
  EXPECT_TRUE(client->heard.ends_with("fine"));
  EXPECT_FALSE(world.backends[0]->conns[0]->ended);
  world.context->DropStrays();
  world.Run();
  EXPECT_TRUE(world.backends[0]->conns[0]->ended);
  world.context->snapshot = before;
}

TEST(WorkerContext, ARequestThatBeganEarlierMayStillConnectAndLeavesNothingBehind) {
  World world(1);
  const auto before = world.context->snapshot;
  Adopt(world, FleetOf({}, 0));
  world.context->DropStrays();
  world.context->Connections(before->fleet->pools[0]->backends[0], *before->pools[0]);
  EXPECT_EQ(world.fleet->pools[0]->backends[0].use_count(), 3);  // The fleet, a table, the connections.
  world.context->DropStrays();
  EXPECT_EQ(world.fleet->pools[0]->backends[0].use_count(), 2);
  world.context->snapshot = before;
}

TEST(WorkerContext, MayEndWhileAnAnswerGoesOnUnderAnOlderPolicyFile) {
  const ResultCacheSettings settings{.name = "results"};
  constexpr std::string_view kSame = R"({"model":"m","temperature":0})";
  World world(1, {}, {}, &settings);
  auto leads = world.Connect();
  const auto follows = world.Connect();
  world.Ask(*leads, Post(kSame));
  world.Ask(*follows, Post(kSame));
  leads.reset();
  world.Run();
  ASSERT_EQ(world.context->orphans.size(), 1u);
  world.context->snapshot = world.MakeSnapshot();
  world.End();
  EXPECT_EQ(world.fleet->pools[0]->backends[0]->state.in_flight(), 0u);
}

TEST(WorkerContext, AQueueThatFindsNoRoomKeepsItsOrder) {
  config::Pool pool;
  config::Backend backend;
  backend.name = backend.address = "127.0.0.1:9001";
  backend.max_requests = 1;
  pool.backends = {backend};
  World world(1, pool);
  std::vector<std::unique_ptr<Peer>> clients;
  for (int i = 0; i < 4; ++i) {
    clients.push_back(world.Connect());
    world.Ask(*clients.back(), Post(kBody));
  }
  const std::vector<Exchange*> before(world.pool().queue.begin(), world.pool().queue.end());
  ASSERT_EQ(before.size(), 3u);
  for (int i = 0; i < 5; ++i) {
    Turn::Scope scope(world.context->turn);
    world.context->PumpQueue(world.pool());
  }
  EXPECT_EQ(std::vector<Exchange*>(world.pool().queue.begin(), world.pool().queue.end()), before);
}

}  // namespace
}  // namespace penstock

namespace penstock {
namespace {

TEST(DrainRate, SaysHowLongSoManyWillTake) {
  DrainRate rate;
  EXPECT_EQ(rate.TimeFor(100), kSecond);  // Nothing has ended yet.
  for (MonoTime now = kSecond; now < 200 * kSecond; now += kSecond / 2) rate.Ended(now);
  EXPECT_NEAR(static_cast<double>(rate.TimeFor(9)), 5.0 * kSecond, 0.1 * kSecond);
  EXPECT_EQ(rate.TimeFor(1'000'000), 60 * kSecond);
}

}  // namespace
}  // namespace penstock
