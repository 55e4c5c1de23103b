#include "proxy/net/tls_acceptor.h"

#include <gtest/gtest.h>

#include "tests/support/tls_world.h"

namespace penstock {
namespace {

struct AcceptWorld {
  void Accept(const TlsPeerWish& wish = {}, bool start = true) {
    links.emplace_back();
    const auto done = [this](TlsAcceptor::Outcome outcome) {
      if (outcome.stream != nullptr) {
        streams.push_back(std::move(outcome.stream));
      } else {
        failures.push_back(outcome.failure);
        peers += outcome.peer;
      }
    };
    acceptor.Accept(ServerContext(), std::move(links.back().a), 10 * kSecond, done);
    peer.push_back(std::make_unique<TlsPeer>(std::move(links.back().b), wish));
    if (start) peer.back()->Start();
  }
  void Run() {
    bool moved = true;
    while (moved) {
      moved = false;
      for (MemoryPair& pair : links) moved |= pair.link->Step();
    }
  }
  DeadlineWheel wheel{1000 * kSecond};
  TlsAcceptor acceptor{wheel};
  std::vector<MemoryPair> links;
  std::vector<std::unique_ptr<TlsPeer>> peer;
  std::vector<std::unique_ptr<Stream>> streams;
  std::vector<TlsFailure> failures;
  std::string peers;
};

TEST(TlsAcceptor, HandsOverWhatShookHandsAndTellsOfTheRest) {
  AcceptWorld w;
  w.Accept({.server_name = "chat.example"});
  w.Accept({}, false);                       // Never says anything.
  w.Accept({.alpn = "\x06spdy/3"});
  w.Accept();
  EXPECT_EQ(w.acceptor.size(), 4u);
  w.Run();
  EXPECT_EQ(w.streams.size(), 2u);
  EXPECT_EQ(w.streams[0]->tls()->server_name, "chat.example");
  EXPECT_EQ(w.failures, std::vector<TlsFailure>{TlsFailure::kAlpn});
  EXPECT_EQ(w.peers, "127.0.0.1:1");
  EXPECT_EQ(w.acceptor.size(), 1u);
  w.wheel.AdvanceTo(w.wheel.now() + 11 * kSecond);
  EXPECT_EQ(w.failures, (std::vector<TlsFailure>{TlsFailure::kAlpn, TlsFailure::kTimeout}));
  EXPECT_EQ(w.acceptor.size(), 0u);
}

TEST(TlsAcceptor, ClosedItTellsNobody) {
  AcceptWorld w;
  w.Accept();
  w.Accept();
  w.acceptor.CloseAll();
  w.Run();
  EXPECT_TRUE(w.streams.empty());
  EXPECT_TRUE(w.failures.empty());
  EXPECT_TRUE(w.peer[0]->ended);
}

}  // namespace
}  // namespace penstock
