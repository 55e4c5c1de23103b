#include "proxy/backends/conn_pool.h"

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "tests/proxy/backends/worlds.h"
#include "tests/support/manual_loop.h"

namespace penstock {
namespace {

constexpr std::string_view kOk = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nfine";

// A request's side: writes down what it is told.
struct Asker final : BackendCall::User {
  void OnConnReady(BackendCall& ready) override { conn = &ready; }
  void OnAnswerHead(ResponseHead& head) override { status = head.status; }
  void OnAnswerInterim(ResponseHead&) override {}
  void OnAnswerBody(std::string_view data) override { body += data; }
  void OnAnswerEnd(std::span<Header>) override {
    conn = nullptr;
    whole = true;
  }
  void OnConnFailed(const ConnFailure& why) override {
    conn = nullptr;
    failed = true;
    failure = why;
  }
  void OnConnWritable() override {}

  BackendCall* conn = nullptr;
  int status = 0;
  std::string body;
  bool whole = false;
  bool failed = false;
  ConnFailure failure;
};

// The engine's end of one connection.
struct End final : StreamReceiver {
  explicit End(std::unique_ptr<Stream> stream_in) : stream(std::move(stream_in)) {
    stream->SetReceiver(this);
    stream->Resume();
  }
  void OnData(std::string_view data) override { heard += data; }
  void OnStreamEnd(const absl::Status&) override { closed = true; }
  void OnWritable() override {}
  std::unique_ptr<Stream> stream;
  std::string heard;
  bool closed = false;
};

struct World {
  explicit World(const ConnPoolLimits& limits = {})
      : backend(PoolOf(1)->backends[0]),
        pool(std::make_unique<ConnPool>(backend, loop.dialer(), loop.deadlines(), turn, limits)) {
    Listen();
  }
  void Listen() { listener = ListenOn(backend->authority); }
  std::unique_ptr<Listener> ListenOn(std::string_view address) {
    return *loop.Listen(*Address::Parse(address), [this](std::unique_ptr<Stream> stream) {
      ends.push_back(std::make_unique<End>(std::move(stream)));
    });
  }
  // A connection for `asker`, dialled if need be.
  void Acquire(Asker& asker, bool fresh = false) {
    {
      Turn::Scope scope(turn);
      asker.conn = pool->Acquire(asker, kSecond, fresh);
    }
    network.RunUntilIdle();
  }
  void Ask(Asker& asker, bool whole = true) {
    Turn::Scope scope(turn);
    RequestHead head;
    head.method = "POST";
    head.target = head.path = "/x";
    head.authority = "engine";
    head.framing = Framing::kLength;
    head.content_length = 4;
    asker.conn->WriteRequest(head, {});
    asker.conn->WriteBody(whole ? "ping" : "pi");
    if (whole) asker.conn->WriteEnd({});
  }
  void Say(size_t end, std::string_view bytes) {
    ends[end]->stream->Write(bytes);
    network.RunUntilIdle();
  }
  // One whole request on the connection that the pool gives, answered by `end`.
  void Exchange(size_t end) {
    Asker asker;
    Acquire(asker);
    Ask(asker);
    network.RunUntilIdle();
    Say(end, kOk);
    EXPECT_TRUE(asker.whole);
  }

  MemoryNetwork network;
  ManualLoop loop{network};
  Turn turn;
  std::shared_ptr<Backend> backend;
  std::unique_ptr<ConnPool> pool;
  std::unique_ptr<Listener> listener;
  std::vector<std::unique_ptr<End>> ends;
};

TEST(ConnPool, DialsAndCarriesARequest) {
  World world;
  Asker asker;
  world.Acquire(asker);
  ASSERT_NE(asker.conn, nullptr);
  world.Ask(asker);
  world.network.RunUntilIdle();
  EXPECT_EQ(world.ends[0]->heard, "POST /x HTTP/1.1\r\nhost: engine\r\ncontent-length: 4\r\n\r\nping");
  world.Say(0, kOk);
  EXPECT_TRUE(asker.whole);
  EXPECT_EQ(asker.status, 200);
  EXPECT_EQ(asker.body, "fine");
  EXPECT_EQ(world.pool->idle(), 1u);
}

TEST(ConnPool, ReusesAConnectionWhoseAnswerWasWhole) {
  World world;
  for (int i = 0; i < 5; ++i) world.Exchange(0);
  EXPECT_EQ(world.ends.size(), 1u);
}

TEST(ConnPool, GivesTheOneThatWasUsedLast) {
  World world;
  Asker first, second;
  world.Acquire(first);
  world.Acquire(second);
  world.Ask(first);
  world.Ask(second);
  world.network.RunUntilIdle();
  world.Say(1, kOk);
  world.Say(0, kOk);
  EXPECT_EQ(world.pool->idle(), 2u);
  for (auto& end : world.ends) end->heard.clear();
  world.Exchange(0);
  EXPECT_EQ(world.ends[1]->heard, "");
}

TEST(ConnPool, DialsAFreshOneWhereItIsAskedTo) {
  World world;
  world.Exchange(0);
  Asker asker;
  world.Acquire(asker, true);
  EXPECT_EQ(world.ends.size(), 2u);
  EXPECT_EQ(world.pool->idle(), 1u);
}

TEST(ConnPool, KeepsOnlySoManyIdleOnes) {
  ConnPoolLimits limits;
  limits.idle = 2;
  World world(limits);
  std::vector<Asker> askers(5);
  for (Asker& asker : askers) {
    world.Acquire(asker);
    world.Ask(asker);
  }
  world.network.RunUntilIdle();
  for (size_t i = 0; i < askers.size(); ++i) world.Say(i, kOk);
  EXPECT_EQ(world.pool->idle(), 2u);
  EXPECT_EQ(world.pool->open(), 2u);
  EXPECT_EQ(std::ranges::count_if(world.ends, [](const auto& end) { return end->closed; }), 3);
}

TEST(ConnPool, ClosesWhatIsIdleForTooLong) {
  World world;
  Asker first, second;
  world.Acquire(first);
  world.Acquire(second);
  world.Ask(first);
  world.Ask(second);
  world.network.RunUntilIdle();
  world.Say(0, kOk);
  world.network.Advance(30 * kSecond);
  world.Say(1, kOk);
  world.network.Advance(31 * kSecond);
  EXPECT_TRUE(world.ends[0]->closed);
  EXPECT_FALSE(world.ends[1]->closed);
  world.network.Advance(30 * kSecond);
  EXPECT_TRUE(world.ends[1]->closed);
  EXPECT_EQ(world.pool->open(), 0u);
}

TEST(ConnPool, ClosesAnIdleConnectionThatSpeaks) {
  World world;
  world.Exchange(0);
  world.Say(0, "HTTP/1.1 200 OK\r\n");
  EXPECT_EQ(world.pool->open(), 0u);
  EXPECT_TRUE(world.ends[0]->closed);
}

TEST(ConnPool, SeesThatAnIdleConnectionWasClosed) {
  World world;
  world.Exchange(0);
  world.ends[0]->stream->Shutdown();
  world.network.RunUntilIdle();
  EXPECT_EQ(world.pool->open(), 0u);
  EXPECT_EQ(world.pool->idle(), 0u);
}

TEST(ConnPool, DoesNotReuseWhatCameBackDirty) {
  for (const std::string_view answer :
       {"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 4\r\n\r\nfine", "HTTP/1.0 200 OK\r\n\r\nfine",
        "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nfineand more"}) {
    World world;
    Asker asker;
    world.Acquire(asker);
    world.Ask(asker);
    world.network.RunUntilIdle();
    world.Say(0, answer);
    world.ends[0]->stream->Shutdown();
    world.network.RunUntilIdle();
    EXPECT_TRUE(asker.whole) << answer;
    EXPECT_EQ(world.pool->open(), 0u) << answer;
  }
}

TEST(ConnPool, DoesNotReuseOneWhoseRequestWasNotWhole) {
  World world;
  Asker asker;
  world.Acquire(asker);
  world.Ask(asker, false);
  world.network.RunUntilIdle();
  world.Say(0, kOk);
  EXPECT_TRUE(asker.whole);
  EXPECT_EQ(world.pool->open(), 0u);
}

TEST(ConnPool, ClosesOneThatIsLeftInTheMiddle) {
  World world;
  Asker asker;
  world.Acquire(asker);
  world.Ask(asker);
  world.network.RunUntilIdle();
  {
    Turn::Scope scope(world.turn);
    std::exchange(asker.conn, nullptr)->Leave();
  }
  world.network.RunUntilIdle();
  EXPECT_TRUE(world.ends[0]->closed);
  EXPECT_FALSE(asker.failed);
  EXPECT_EQ(world.pool->open(), 0u);
}

TEST(ConnPool, ClosesOneThatIsLeftBeforeItsRequest) {
  World world;
  Asker asker;
  world.Acquire(asker);
  {
    Turn::Scope scope(world.turn);
    std::exchange(asker.conn, nullptr)->Leave();
  }
  world.network.RunUntilIdle();
  EXPECT_EQ(world.pool->open(), 0u);
  EXPECT_TRUE(world.ends[0]->closed);
}

TEST(ConnPool, TellsHowAnAnswerBrokeOff) {
  World world;
  world.Exchange(0);
  Asker asker;
  world.Acquire(asker);
  world.Ask(asker);
  world.network.RunUntilIdle();
  world.ends[0]->stream->Reset();
  world.network.RunUntilIdle();
  ASSERT_TRUE(asker.failed);
  EXPECT_EQ(asker.failure.kind, ConnFailure::Kind::kReset);
  EXPECT_TRUE(asker.failure.reused);
  EXPECT_FALSE(asker.failure.answer_begun);
  EXPECT_TRUE(asker.failure.message.starts_with("backend b0: "));
}

TEST(ConnPool, TellsThatAnAnswerHadBegun) {
  World world;
  Asker asker;
  world.Acquire(asker);
  world.Ask(asker);
  world.network.RunUntilIdle();
  world.Say(0, "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nfi");
  world.ends[0]->stream->Shutdown();
  world.network.RunUntilIdle();
  ASSERT_TRUE(asker.failed);
  EXPECT_EQ(asker.failure.kind, ConnFailure::Kind::kReset);
  EXPECT_TRUE(asker.failure.answer_begun);
  EXPECT_FALSE(asker.failure.reused);
}

TEST(ConnPool, TellsNonsenseFromALostConnection) {
  World world;
  Asker asker;
  world.Acquire(asker);
  world.Ask(asker);
  world.network.RunUntilIdle();
  world.Say(0, "nonsense\r\n\r\n");
  ASSERT_TRUE(asker.failed);
  EXPECT_EQ(asker.failure.kind, ConnFailure::Kind::kBadAnswer);
  EXPECT_EQ(world.pool->open(), 0u);
}

TEST(ConnPool, TellsWhenNobodyListens) {
  World world;
  world.listener.reset();
  Asker asker;
  world.Acquire(asker);
  ASSERT_TRUE(asker.failed);
  EXPECT_EQ(asker.failure.kind, ConnFailure::Kind::kConnect);
  EXPECT_EQ(asker.failure.message, "backend b0: 127.0.0.1:9001: connect: connection refused");
}

TEST(ConnPool, TellsWhenADialTakesTooLong) {
  World world;
  world.network.black_holes.insert(world.backend->authority);
  Asker asker;
  world.Acquire(asker);
  world.network.Advance(kSecond - 1);
  EXPECT_FALSE(asker.failed);
  world.network.Advance(DeadlineWheel::kTick);
  ASSERT_TRUE(asker.failed);
  EXPECT_EQ(asker.failure.kind, ConnFailure::Kind::kConnectTimeout);
}

TEST(ConnPool, ACancelledDialIsHeardOfNoMore) {
  World world;
  Asker asker, other;
  {
    Turn::Scope scope(world.turn);
    EXPECT_EQ(world.pool->Acquire(asker, kSecond, false), nullptr);
    EXPECT_EQ(world.pool->Acquire(other, kSecond, false), nullptr);
    world.pool->Cancel(asker);
    world.pool->Cancel(asker);
  }
  world.network.RunUntilIdle();
  EXPECT_EQ(asker.conn, nullptr);
  EXPECT_FALSE(asker.failed);
  EXPECT_NE(other.conn, nullptr);
  EXPECT_EQ(world.pool->open(), 1u);
}

TEST(ConnPool, GoesToTheAddressOfTheMoment) {
  World world;
  world.Exchange(0);
  world.backend->SetAddress(*Address::Parse("127.0.0.1:9999"));
  Asker asker;
  world.Acquire(asker, true);
  EXPECT_TRUE(asker.failed);
  EXPECT_NE(asker.failure.message.find("127.0.0.1:9999"), std::string::npos);
}

TEST(ConnPool, LeavesWhereItsBackendWasAndEndsWhatRunsThere) {
  World world;
  const auto elsewhere = world.ListenOn("127.0.0.1:9999");
  Asker runs;
  world.Acquire(runs);
  world.Ask(runs);
  world.Exchange(1);
  EXPECT_EQ(world.pool->idle(), 1u);
  world.backend->SetAddress(*Address::Parse("127.0.0.1:9999"));
  world.Exchange(2);
  EXPECT_TRUE(world.ends[1]->closed);
  EXPECT_FALSE(world.ends[0]->closed);
  world.Say(0, kOk);
  EXPECT_TRUE(runs.whole);
  EXPECT_TRUE(world.ends[0]->closed);
  EXPECT_EQ(world.pool->open(), 1u);
  world.Exchange(2);
}

TEST(ConnPool, ADialThatItsBackendLeftBehindServesItsOwnRequestAlone) {
  World world;
  const auto elsewhere = world.ListenOn("127.0.0.1:9999");
  Asker asker;
  {
    Turn::Scope scope(world.turn);
    world.pool->Acquire(asker, kSecond, false);
  }
  world.backend->SetAddress(*Address::Parse("127.0.0.1:9999"));
  world.network.RunUntilIdle();
  ASSERT_NE(asker.conn, nullptr);
  world.Ask(asker);
  world.network.RunUntilIdle();
  world.Say(0, kOk);
  EXPECT_TRUE(asker.whole);
  EXPECT_TRUE(world.ends[0]->closed);
  EXPECT_EQ(world.pool->open(), 0u);
}

}  // namespace
}  // namespace penstock
