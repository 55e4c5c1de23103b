// Which HTTP/2 connection a request gets, and what happens while there is none.
#include <algorithm>
#include <array>
#include <vector>

#include <gtest/gtest.h>

#include "tests/proxy/backends/h2_pool.h"

namespace penstock {
namespace {

using Kind = ConnFailure::Kind;

TEST(H2Pool, ABurstSharesTheDialsThatItNeeds) {
  H2World world({.connections = 8});
  std::vector<H2Asker> askers(250);
  {
    Turn::Scope scope(world.turn);
    for (H2Asker& asker : askers) EXPECT_EQ(world.pool->Acquire(asker, kSecond, false), nullptr);
  }
  EXPECT_EQ(world.pool->waiting(), 250u);
  world.Run();
  EXPECT_EQ(world.ends.size(), 3u);
  EXPECT_EQ(world.pool->waiting(), 0u);
  EXPECT_EQ(world.cells().connections[1].value(), 3);
}

TEST(H2Pool, UntilABackendHasSaidHowManyItTakesOneRequestGoes) {
  H2World world({}, Allowing(1));
  std::array<H2Asker, 5> askers;
  {
    Turn::Scope scope(world.turn);
    for (H2Asker& asker : askers) world.pool->Acquire(asker, kSecond, false);
  }
  world.Run();
  EXPECT_EQ(world.ends.size(), 5u);
  EXPECT_EQ(world.cells().streams_refused.value(), 0);
  for (const H2Asker& asker : askers) EXPECT_NE(asker.call, nullptr);
}

TEST(H2Pool, FillsOneConnectionBeforeItOpensAnother) {
  H2World world({}, Allowing(2));
  std::array<H2Asker, 5> askers;
  for (H2Asker& asker : askers) world.Ask(asker);
  EXPECT_EQ(world.ends.size(), 3u);
  world.ends[0]->Answer(1);
  world.Run();
  H2Asker next;
  world.Ask(next);
  EXPECT_EQ(world.ends.size(), 3u);
  EXPECT_EQ(world.ends[0]->peer.of(5).heads, 1);
}

TEST(H2Pool, RequestsWaitForAStreamInTheOrderTheyCame) {
  H2World world({.connections = 1}, Allowing(1));
  H2Asker first;
  world.Ask(first);
  std::array<H2Asker, 3> others;
  for (H2Asker& asker : others) {
    world.Ask(asker);
    EXPECT_EQ(asker.call, nullptr);
  }
  EXPECT_EQ(world.pool->waiting(), 3u);
  for (size_t i = 0; i < others.size(); ++i) {
    world.ends[0]->Answer(static_cast<MessageId>(2 * i + 1));
    world.Run();
    ASSERT_NE(others[i].call, nullptr) << i;
    if (i + 1 < others.size()) {
      EXPECT_EQ(others[i + 1].call, nullptr);
    }
  }
  EXPECT_EQ(world.ends.size(), 1u);
}

TEST(H2Pool, AStreamThatIsLeftMakesRoom) {
  H2World world({.connections = 1}, Allowing(1));
  H2Asker first, second;
  world.Ask(first);
  world.Ask(second);
  EXPECT_EQ(second.call, nullptr);
  world.Leave(first);
  EXPECT_NE(second.call, nullptr);
  world.Leave(second);
}

TEST(H2Pool, ARequestThatNoStreamComesFreeForIsToldAfterTheConnectTimeout) {
  H2World world({.connections = 1}, Allowing(1));
  H2Asker first, second;
  world.Ask(first);
  world.Ask(second);
  world.network.Advance(kSecond);
  EXPECT_EQ(second.failures, 0);
  world.network.Advance(4 * DeadlineWheel::kTick);
  EXPECT_EQ(second.failures, 1);
  EXPECT_EQ(second.failure.kind, Kind::kNoStream);
  EXPECT_EQ(world.pool->waiting(), 0u);
}

TEST(H2Pool, ABackendThatAllowsNoStreamsIsNotDialledAgain) {
  H2World world({}, Allowing(0));
  std::array<H2Asker, 3> askers;
  for (H2Asker& asker : askers) {
    world.Ask(asker);   // Before its settings arrive, one may go.
  }
  world.network.Advance(2 * kSecond);
  EXPECT_EQ(world.ends.size(), 1u);
  EXPECT_EQ(askers[0].failure.kind, Kind::kRefused);
  EXPECT_EQ(askers[1].failure.kind, Kind::kNoStream);
  EXPECT_EQ(askers[2].failure.kind, Kind::kNoStream);
  // It says that it allows one after all.
  H2Asker later;
  world.Ask(later);
  EXPECT_EQ(later.call, nullptr);
  EXPECT_EQ(later.failures, 0);
  world.ends[0]->stream->Write(h2::Settings({{0x3, 1}}));
  world.Run();
  const auto frames = FramesOf(world.ends[0]->heard, true);
  EXPECT_NE(std::ranges::find(frames, "HEADERS 3 end"), frames.end());
}

TEST(H2Pool, NoMoreConnectionsAreOpenedThanTheLimit) {
  H2World world({.connections = 2}, Allowing(1));
  std::array<H2Asker, 5> askers;
  for (H2Asker& asker : askers) {
    world.Ask(asker);
  }
  EXPECT_EQ(world.ends.size(), 2u);
  EXPECT_EQ(world.pool->waiting(), 3u);
}

TEST(H2Pool, OurLimitOfStreamsHoldsWhereTheBackendAllowsMore) {
  ConnPoolLimits limits;
  limits.codec.h2.concurrent_streams = 2;
  H2World world(limits);
  std::array<H2Asker, 4> askers;
  for (H2Asker& asker : askers) world.Ask(asker);
  EXPECT_EQ(world.ends.size(), 2u);
}

TEST(H2Pool, AFailedDialIsToldToAllWhoWaitAndAsAFaultToTheFirst) {
  H2World world;
  world.listener.reset();
  std::array<H2Asker, 5> askers;
  {
    Turn::Scope scope(world.turn);
    for (H2Asker& asker : askers) world.pool->Acquire(asker, kSecond, false);
    world.pool->Cancel(askers[3]);
  }
  world.Run();
  for (size_t i = 0; i < askers.size(); ++i) {
    EXPECT_EQ(askers[i].failures, i == 3 ? 0 : 1);
    EXPECT_EQ(askers[i].failure.shared, i > 0 && i != 3);
  }
  EXPECT_EQ(askers[0].failure.kind, Kind::kConnect);
  EXPECT_EQ(world.cells().connect_failures[0].value(), 1);
  EXPECT_FALSE(world.pool->in_use());
}

TEST(H2Pool, ADialThatTakesTooLongIsAConnectTimeout) {
  H2World world;
  world.network.black_holes.insert(world.backend->authority);
  H2Asker first, second;
  world.Ask(first);
  world.Ask(second);
  world.network.Advance(kSecond + 2 * DeadlineWheel::kTick);
  EXPECT_EQ(first.failure.kind, Kind::kConnectTimeout);
  EXPECT_FALSE(first.failure.shared);
  EXPECT_EQ(second.failure.kind, Kind::kConnectTimeout);
  EXPECT_TRUE(second.failure.shared);
}

TEST(H2Pool, AnIdleConnectionIsClosedWithAGoodbye) {
  H2World world({.idle_timeout = 30 * kSecond});
  H2Asker asker;
  world.Ask(asker);
  world.network.Advance(60 * kSecond);
  EXPECT_FALSE(world.ends[0]->closed);
  world.ends[0]->Answer(1);
  world.Run();
  world.network.Advance(29 * kSecond);
  EXPECT_FALSE(world.ends[0]->closed);
  world.network.Advance(2 * kSecond);
  EXPECT_TRUE(world.ends[0]->closed);
  EXPECT_EQ(world.ends[0]->peer.goaways(), 1);
  EXPECT_EQ(world.pool->open(), 0u);
}

// `auto` over TLS: the first connection tells.
struct TlsDialer final : Dialer {
  explicit TlsDialer(Dialer& inner_in, std::string alpn_in) : inner(inner_in), alpn(std::move(alpn_in)) {}
  std::unique_ptr<Pending> Dial(const Address& address, MonoTime timeout, Callback callback) override {
    ++dials;
    return inner.Dial(address, timeout,
                      [this, callback = std::move(callback)](auto stream) mutable {
                        if (stream.ok()) static_cast<MemoryStream&>(**stream).SetTls({.alpn = alpn});
                        callback(std::move(stream));
                      });
  }
  Dialer& inner;
  std::string alpn;
  int dials = 0;
};

TEST(H2Pool, WithTlsTheFirstConnectionTellsWhichProtocolTheBackendSpeaks) {
  for (const std::string alpn : {"h2", "http/1.1"}) {
    H2World world;
    std::vector<std::unique_ptr<Stream>> silent;
    if (alpn != "h2") {
      world.listener.reset();
      world.listener = *world.loop.Listen(
          *Address::Parse(world.backend->authority),
          [&](std::unique_ptr<Stream> stream) { silent.push_back(std::move(stream)); });
    }
    TlsDialer dialer(world.loop.dialer(), alpn);
    ConnPool pool(world.backend, dialer, world.loop.deadlines(), world.turn, {.tls = true});
    std::array<H2Asker, 4> askers;
    {
      Turn::Scope scope(world.turn);
      for (H2Asker& asker : askers) pool.Acquire(asker, kSecond, false);
    }
    EXPECT_EQ(dialer.dials, 1);
    world.Run();
    EXPECT_EQ(dialer.dials, alpn == "h2" ? 1 : 4);
    EXPECT_EQ(world.cells().connections[alpn == "h2" ? 1 : 0].value(), alpn == "h2" ? 1 : 4);
    for (H2Asker& asker : askers) {
      EXPECT_NE(asker.call, nullptr);
      world.Leave(asker);
    }
    world.Run();
  }
}

TEST(H2Pool, WhatOnlyHttp1CanCarryGetsAConnectionOfItsOwn) {
  for (const bool first : {true, false}) {
    H2World world;
    std::vector<std::unique_ptr<Stream>> silent;   // The end that does not speak HTTP/2.
    world.listener.reset();
    world.listener = *world.loop.Listen(
        *Address::Parse(world.backend->authority), [&](std::unique_ptr<Stream> stream) {
          if (silent.size() + world.ends.size() == (first ? 0 : 1)) {
            silent.push_back(std::move(stream));
          } else {
            world.ends.push_back(std::make_unique<H2End>(std::move(stream), CodecLimits()));
          }
        });
    TlsDialer dialer(world.loop.dialer(), "h2");
    ConnPool pool(world.backend, dialer, world.loop.deadlines(), world.turn, {.tls = true});
    H2Asker upgrade, asker;
    upgrade.sends = false;
    const auto acquire = [&](H2Asker& who, bool only_http1) {
      Turn::Scope scope(world.turn);
      EXPECT_EQ(pool.Acquire(who, kSecond, false, only_http1), nullptr);
    };
    if (first) acquire(upgrade, true);
    acquire(asker, false);
    world.Run();
    if (!first) acquire(upgrade, true);
    world.Run();
    EXPECT_EQ(dialer.dials, 2);
    EXPECT_EQ(world.cells().connections[0].value(), 1);
    EXPECT_EQ(world.cells().connections[1].value(), 1);
    ASSERT_NE(upgrade.call, nullptr);
    ASSERT_NE(asker.call, nullptr);
    // What the pool knows of the backend has not changed.
    H2Asker next;
    {
      Turn::Scope scope(world.turn);
      next.call = pool.Acquire(next, kSecond, false);
    }
    EXPECT_NE(next.call, nullptr);
    EXPECT_EQ(dialer.dials, 2);
    for (H2Asker* who : {&upgrade, &asker, &next}) world.Leave(*who);
  }
}

TEST(H2Pool, LeavesWhereItsBackendWasAndEndsWhatRunsThere) {
  H2World world;
  const auto elsewhere = world.ListenOn("127.0.0.1:9999");
  H2Asker runs, next;
  world.Ask(runs);
  world.backend->SetAddress(*Address::Parse("127.0.0.1:9999"));
  world.Ask(next);
  ASSERT_EQ(world.ends.size(), 2u);
  EXPECT_EQ(world.ends[1]->peer.of(1).heads, 1);
  EXPECT_FALSE(world.ends[0]->closed);
  world.ends[0]->Answer(1);
  world.Run();
  EXPECT_EQ(runs.ends, 1);
  EXPECT_TRUE(world.ends[0]->closed);
  EXPECT_FALSE(world.ends[1]->closed);
  EXPECT_EQ(world.pool->open(), 1u);
}

TEST(H2Pool, ClosesWhatIsIdleWhereItsBackendWas) {
  H2World world;
  const auto elsewhere = world.ListenOn("127.0.0.1:9999");
  H2Asker first, next;
  world.Ask(first);
  world.ends[0]->Answer(1);
  world.Run();
  world.backend->SetAddress(*Address::Parse("127.0.0.1:9999"));
  world.Ask(next);
  EXPECT_TRUE(world.ends[0]->closed);
  EXPECT_EQ(world.ends[1]->peer.of(1).heads, 1);
}

TEST(H2Pool, WhoWaitsIsServedWhereItsBackendIsNow) {
  H2World world({.connections = 1}, Allowing(1));
  const auto elsewhere = world.ListenOn("127.0.0.1:9999");
  H2Asker dials, waits;
  {
    Turn::Scope scope(world.turn);
    world.pool->Acquire(dials, kSecond, false);
  }
  world.backend->SetAddress(*Address::Parse("127.0.0.1:9999"));
  world.Run();
  ASSERT_EQ(world.ends.size(), 2u);
  EXPECT_TRUE(world.ends[0]->closed);
  EXPECT_EQ(world.ends[1]->peer.of(1).heads, 1);
  world.Ask(waits);
  EXPECT_EQ(world.pool->waiting(), 1u);
  world.backend->SetAddress(*Address::Parse(world.backend->authority));
  world.ends[1]->Answer(1);      // A stream is free, but not where the backend is.
  world.Run();
  EXPECT_TRUE(world.ends[1]->closed);
  ASSERT_EQ(world.ends.size(), 3u);
  EXPECT_EQ(world.ends[2]->peer.of(1).heads, 1);
}

}  // namespace
}  // namespace penstock
