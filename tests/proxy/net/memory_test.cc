// The in-memory stream and loop keep the promises that the real ones keep.
#include <gtest/gtest.h>
#include <signal.h>

#include <functional>

#include "proxy/base/random.h"
#include "tests/support/manual_loop.h"
#include "tests/support/seeds.h"

namespace penstock {
namespace {

struct Ear final : StreamReceiver {
  std::string data;
  absl::Status end = absl::UnknownError("not ended");
  int ends = 0;
  int writables = 0;
  std::function<void()> on_data;

  void OnData(std::string_view bytes) override {
    data += bytes;
    if (on_data) on_data();
  }
  void OnStreamEnd(const absl::Status& status) override {
    end = status;
    ++ends;
  }
  void OnWritable() override { ++writables; }
};

struct Pair {
  explicit Pair(const MemoryLinkOptions& options = {}) : pair(options) {
    pair.a->SetReceiver(&a);
    pair.b->SetReceiver(&b);
  }
  void Run() {
    while (pair.link->Step()) {
    }
  }
  Ear a, b;
  MemoryPair pair;
};

TEST(MemoryStream, DeliversInOrderOnlyWhileResumed) {
  Pair p;
  p.pair.a->Write("one ");
  p.pair.a->Write("two");
  p.pair.a->Shutdown();
  p.Run();
  EXPECT_EQ(p.b.data, "");
  p.pair.b->Resume();
  p.Run();
  EXPECT_EQ(p.b.data, "one two");
  EXPECT_TRUE(p.b.end.ok());
  EXPECT_EQ(p.b.ends, 1);
}

TEST(MemoryStream, IsNotSecureUntilATestSaysSo) {
  Pair p;
  EXPECT_EQ(p.pair.a->tls(), nullptr);
  EXPECT_EQ(p.pair.a->alpn(), "");
  p.pair.a->SetTls({.alpn = "h2", .server_name = "chat.example"});
  EXPECT_EQ(p.pair.a->alpn(), "h2");
  EXPECT_EQ(p.pair.a->tls()->server_name, "chat.example");
}

TEST(MemoryStream, AFullWindowBuffersAndTellsWhenItHasDrained) {
  Pair p({.deliver_bytes = 10, .window_bytes = 20, .high_mark = 40});
  p.pair.a->Write(std::string(60, 'x'));
  EXPECT_FALSE(p.pair.a->above_mark());
  p.pair.a->Write("y");
  EXPECT_TRUE(p.pair.a->above_mark());
  p.pair.b->Resume();
  p.Run();
  EXPECT_EQ(p.a.writables, 1);
  EXPECT_EQ(p.pair.a->buffered(), 0u);
}

TEST(MemoryStream, AResetDropsWhatWasUnderWay) {
  Pair p;
  p.pair.a->Write("lost");
  p.pair.a->Reset();
  p.pair.a->Resume();
  p.pair.b->Resume();
  p.Run();
  EXPECT_EQ(p.b.data, "");
  EXPECT_FALSE(p.b.end.ok());
  EXPECT_EQ(p.a.ends, 0);
}

TEST(MemoryStream, AnEndThatGoesAwayEndsItsBytesOrResetsIfItLeftSomeUnread) {
  Pair read;
  read.pair.b->Resume();
  read.pair.a->Write("last");
  read.pair.a.reset();
  read.Run();
  EXPECT_EQ(read.b.data, "last");
  EXPECT_TRUE(read.b.end.ok());

  Pair unread;
  unread.pair.b->Resume();
  unread.pair.b->Write("never read");
  unread.pair.a.reset();
  unread.Run();
  EXPECT_FALSE(unread.b.end.ok());
}

TEST(MemoryNetwork, BytesCutAtRandomArriveWhole) {
  ForEachSeed(20, [](uint64_t seed) {
    Random random(seed);
    Pair p({.deliver_bytes = 1 + random.Below(50),
            .window_bytes = random.Below(200),
            .high_mark = 100,
            .seed = seed});
    p.pair.b->Resume();
    std::string sent;
    for (int i = 0; i < 100; ++i) {
      const std::string piece(random.Below(100), static_cast<char>('a' + i % 26));
      sent += piece;
      p.pair.a->Write(piece);
      if (random.Below(2) == 0) p.pair.link->Step();
    }
    p.Run();
    ASSERT_EQ(p.b.data, sent);
  });
}

TEST(MemoryNetwork, DialsAreAcceptedRefusedOrHang) {
  MemoryNetwork network;
  ManualLoop loop(network);
  const Address here = *Address::Parse("10.0.0.1:80");
  std::unique_ptr<Stream> accepted, dialled;
  absl::Status refused, late;
  auto listener = loop.Listen(here, [&](auto stream) { accepted = std::move(stream); });
  ASSERT_TRUE(listener.ok());
  network.black_holes.insert("10.0.0.3:80");
  auto good = loop.dialer().Dial(here, kSecond, [&](auto stream) { dialled = *std::move(stream); });
  auto bad = loop.dialer().Dial(*Address::Parse("10.0.0.2:80"), kSecond,
                                [&](auto stream) { refused = stream.status(); });
  auto hung = loop.dialer().Dial(*Address::Parse("10.0.0.3:80"), kSecond,
                                 [&](auto stream) { late = stream.status(); });
  {
    auto gone = loop.dialer().Dial(here, kSecond, [](auto) { FAIL(); });
  }
  EXPECT_EQ(dialled, nullptr);
  network.RunUntilIdle();
  EXPECT_NE(dialled, nullptr);
  EXPECT_NE(accepted, nullptr);
  EXPECT_EQ(refused.code(), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(late.ok());
  network.Advance(2 * kSecond);
  EXPECT_EQ(late.code(), absl::StatusCode::kDeadlineExceeded);

  Ear ear;
  dialled->SetReceiver(&ear);
  dialled->Resume();
  network.ResetAllTo("10.0.0.1:80");
  network.RunUntilIdle();
  EXPECT_FALSE(ear.end.ok());
}

TEST(ManualLoop, ListensAtTheAddressOfASocketInMemory) {
  MemoryNetwork network;
  ManualLoop loop(network);
  const Address address = *Address::Parse("10.0.0.1:80");
  std::vector<std::unique_ptr<Stream>> accepted;
  const auto listener = loop.Listen(ListeningSocket::InMemory(address), [&](std::unique_ptr<Stream> stream) {
    accepted.push_back(std::move(stream));
  });
  std::unique_ptr<Stream> near;
  const auto dial = loop.dialer().Dial(address, kSecond, [&](auto stream) { near = *std::move(stream); });
  network.RunUntilIdle();
  ASSERT_EQ(accepted.size(), 1u);
  accepted[0]->Write("four");
  EXPECT_EQ(network.LinksTo(address.text), 1u);
  EXPECT_EQ(network.MostUnderWay(address.text, 0), 4u);
  EXPECT_EQ(network.MostUnderWay(address.text, 1), 0u);
}

TEST(ManualLoop, TimeStopsAtEveryDeadlineOfEveryLoop) {
  MemoryNetwork network;
  ManualLoop first(network), second(network);
  std::vector<MonoTime> fired;
  auto a = first.timers().After(3 * kSecond,
                                [&] { fired.push_back(first.now() - MemoryNetwork::kStart); });
  auto b = second.timers().After(kSecond, [&] {
    fired.push_back(second.now() - MemoryNetwork::kStart);
    first.Post([&] { fired.push_back(-1); });
  });
  network.Advance(5 * kSecond);
  EXPECT_EQ(fired, (std::vector<MonoTime>{kSecond, -1, 3 * kSecond}));
  EXPECT_EQ(network.now(), MemoryNetwork::kStart + 5 * kSecond);
}

TEST(ManualLoop, SignalsWorkAndNamesAreTold) {
  MemoryNetwork network;
  ManualLoop loop(network);
  std::string log;
  {
    auto watch = loop.OnSignal(SIGTERM, [&] { log += "term "; });
    loop.Signal(SIGTERM);
  }
  loop.Signal(SIGTERM);
  loop.Offload([&] { log += "work "; }, [&] { log += "done "; });
  network.names["engines"] = {*Address::Parse("10.0.0.1:0"), *Address::Parse("[::1]:0")};
  loop.Resolve("engines", 9001,
               [&](auto addresses) { log += (*addresses)[0].text + (*addresses)[1].text; });
  loop.Resolve("other", 9001, [&](auto addresses) { log += addresses.ok() ? "" : " unknown"; });
  network.RunUntilIdle();
  EXPECT_EQ(log, "term work done 10.0.0.1:9001[::1]:9001 unknown");
}

}  // namespace
}  // namespace penstock
