#include "proxy/request/overload.h"

#include <initializer_list>

#include <gtest/gtest.h>

#include "tests/proxy/request/world.h"

namespace penstock {
namespace {

constexpr std::string_view kBody = R"({"model":"m"})";

TEST(MemoryGuard, GivesUpMoreTheFullerTheMemoryIs) {
  MemoryGuard guard(config::Overload{});
  for (const auto& [share, level] : std::initializer_list<std::pair<double, Pressure>>{
           {0, Pressure::kNone},     {0.849, Pressure::kNone},  {0.85, Pressure::kShorten},
           {0.919, Pressure::kShorten}, {0.92, Pressure::kClose}, {0.95, Pressure::kReject},
           {0.979, Pressure::kReject},  {0.98, Pressure::kStop}, {3, Pressure::kStop}}) {
    EXPECT_EQ(guard.Sample(share), level) << share;
  }
}

TEST(MemoryGuard, SkipsLevelsOnTheWayUpAndDown) {
  MemoryGuard guard(config::Overload{});
  EXPECT_EQ(guard.Sample(0.99), Pressure::kStop);
  EXPECT_EQ(guard.Sample(0.2), Pressure::kNone);
}

TEST(MemoryGuard, LeavesALevelOnlyWellBelowWhereItWasEntered) {
  MemoryGuard guard(config::Overload{});
  EXPECT_EQ(guard.Sample(0.95), Pressure::kReject);
  for (int i = 0; i < 100; ++i) {  // Trembles around the threshold.
    EXPECT_EQ(guard.Sample(i % 2 == 0 ? 0.949 : 0.951), Pressure::kReject);
  }
  EXPECT_EQ(guard.Sample(0.925), Pressure::kReject);
  EXPECT_EQ(guard.Sample(0.919), Pressure::kClose);
  EXPECT_EQ(guard.Sample(0.889), Pressure::kShorten);
  EXPECT_EQ(guard.Sample(0.819), Pressure::kNone);
}

TEST(MemoryGuard, ShortensIdleTimesMoreTheFullerTheMemoryIs) {
  MemoryGuard guard(config::Overload{});
  double before = 2;
  for (const double share : {0.5, 0.86, 0.88, 0.9, 0.919}) {
    guard.Sample(share);
    EXPECT_LT(guard.idle_share(), before);
    before = guard.idle_share();
  }
  guard.Sample(0.92);
  EXPECT_EQ(guard.idle_share(), 0);
}

TEST(StandingDelay, IsWhatMostSamplesSay) {
  StandingDelay delay;
  EXPECT_EQ(delay.median(), 0);
  delay.Add(10 * kSecond);  // One turn that was stopped, and one more.
  delay.Add(10 * kSecond);
  EXPECT_EQ(delay.median(), 0);
  delay.Add(kSecond);
  EXPECT_EQ(delay.median(), kSecond);
  for (size_t i = 0; i < StandingDelay::kSamples; ++i) delay.Add(1);
  EXPECT_EQ(delay.median(), 1);
}

TEST(ShedChance, GrowsFromWhereItBeginsToWhereItIsCertain) {
  EXPECT_EQ(ShedChance(99, 100, 300), 0);
  EXPECT_EQ(ShedChance(100, 100, 300), 0);
  EXPECT_EQ(ShedChance(200, 100, 300), 0.5);
  EXPECT_EQ(ShedChance(300, 100, 300), 1);
  EXPECT_EQ(ShedChance(kNever, 100, 300), 1);
  EXPECT_EQ(ShedChance(101, 100, 100), 1);
  EXPECT_EQ(ShedChance(kNever, 0, 300), 0) << "0 is never";
}

// How many are taken within `duration` by somebody who always wants more.
int Taken(Pace& pace, MonoTime& now, MonoTime duration) {
  int taken = 0;
  for (const MonoTime end = now + duration; now < end; now += kMillisecond) {
    while (taken < 1'000'000 && pace.NextAt(now) <= now) {
      pace.Take(now);
      ++taken;
    }
  }
  return taken;
}

TEST(Pace, LetsSoManyASecondThroughAndABurst) {
  Pace pace;
  pace.SetRate(100);
  MonoTime now = 7 * kSecond;
  EXPECT_NEAR(Taken(pace, now, 10 * kSecond), 1010, 3);
  now += 3600 * kSecond;  // A long rest is no more than one burst.
  EXPECT_NEAR(Taken(pace, now, kSecond), 110, 3);
}

TEST(Pace, WithoutARateTakesEverything) {
  Pace pace;
  for (int i = 0; i < 1000; ++i) pace.Take(5);
  EXPECT_LE(pace.NextAt(5), 5);
}

TEST(Pace, TakesOneNowAndThenAtTheSmallestRate) {
  Pace pace;
  pace.SetRate(0.5);
  MonoTime now = kSecond;
  EXPECT_NEAR(Taken(pace, now, 20 * kSecond), 11, 1);
}

TEST(Overload, NewRequestsAreRefusedWhileThoseInProgressGoOn) {
  World world;
  const auto busy = world.Connect();
  world.Ask(*busy, Post(kBody));
  const auto other = world.Connect();
  world.totals.pressure = Pressure::kReject;
  const std::string refused = world.Ask(*other, Post(kBody));
  EXPECT_EQ(StatusOf(refused), 503);
  EXPECT_NE(refused.find("\"overloaded\""), std::string::npos);
  EXPECT_NE(refused.find("retry-after: "), std::string::npos);
  EXPECT_NE(refused.find("x-should-retry: false"), std::string::npos);
  EXPECT_NE(refused.find("connection: close"), std::string::npos);
  EXPECT_EQ(world.metrics.shed_for_memory.value(), 1);
  world.backends[0]->Say(Ok("fine"));
  world.Run();
  EXPECT_EQ(StatusOf(busy->Take()), 200);
}

TEST(Overload, ConnectionsCloseAfterTheirAnswerFromTheLevelThatSaysSo) {
  World world;
  world.backends[0]->answer = Ok("fine");
  const auto client = world.Connect();
  world.totals.pressure = Pressure::kShorten;
  EXPECT_EQ(world.Ask(*client, Post(kBody)).find("connection: close"), std::string::npos);
  world.totals.pressure = Pressure::kClose;
  EXPECT_NE(world.Ask(*client, Post(kBody)).find("connection: close"), std::string::npos);
  EXPECT_TRUE(client->ended);
}

TEST(Overload, AShareOfTheRequestsIsRefusedWhenTurnsAreLate) {
  World world;
  world.backends[0]->answer = Ok("fine");
  world.context->shed_chance = 0.3;
  int refused = 0;
  for (int i = 0; i < 1000; ++i) {
    const auto client = world.Connect();  // Who is refused before the body has been read is cut off.
    refused += StatusOf(world.Ask(*client, Post(kBody))) == 503;
  }
  EXPECT_GT(refused, 240);
  EXPECT_LT(refused, 360);
  EXPECT_EQ(world.metrics.shed_for_delay.value(), refused);
}

TEST(Overload, OnlyConnectionsThatAreIdleForSoLongAreClosed) {
  World world;
  const auto idle = world.Connect();
  world.Wait(20 * kSecond);
  const auto fresh = world.Connect();
  const auto busy = world.Connect();
  world.Ask(*busy, Post(kBody));
  world.sessions->CloseIdle(10 * kSecond);
  world.Run();
  EXPECT_TRUE(idle->ended);
  EXPECT_FALSE(fresh->closed());
  EXPECT_FALSE(busy->closed());
}

TEST(Entrance, ThatIsGoneEndsItsConnectionsAndNoOthers) {
  World world;
  world.backends[0]->answer = Ok("fine");
  const auto client = world.Connect();
  const auto gone = std::exchange(world.entrance, std::make_shared<Entrance>());
  const auto other = world.Connect();
  gone->gone = true;
  EXPECT_EQ(world.Ask(*other, Post(kBody)).find("connection: close"), std::string::npos);
  EXPECT_NE(world.Ask(*client, Post(kBody)).find("connection: close"), std::string::npos);
  EXPECT_TRUE(client->ended);
  EXPECT_FALSE(other->closed());
  world.sessions->Drain(0, gone.get());
  world.Run();
  EXPECT_FALSE(other->closed());
}

}  // namespace
}  // namespace penstock
