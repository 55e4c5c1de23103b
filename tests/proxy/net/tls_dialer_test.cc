#include "proxy/net/tls_dialer.h"

#include <gtest/gtest.h>
#include <openssl/ssl.h>

#include "proxy/base/status.h"
#include "tests/support/manual_loop.h"
#include "tests/support/tls_world.h"

namespace penstock {
namespace {

// A backend that answers as `wish` says, and one dial to it.
struct DialWorld {
  explicit DialWorld(const TlsPeerWish& wish = {.pair = ChatPair()}) : loop(network), wish(wish) {
    this->wish.server = true;
    listener = *loop.Listen(*Address::Parse("10.0.0.1:443"), [this](auto stream) {
      if (on_accept) return on_accept(std::move(stream));
      peer = std::make_unique<TlsPeer>(std::move(stream), this->wish);
    });
  }
  absl::Status Dial(const std::shared_ptr<const TlsTarget>& target,
                    const std::vector<std::string>& alpn = {}) {
    TlsDialer dialer(loop.dialer(), loop.deadlines(), target, alpn);
    absl::Status status = absl::UnknownError("not called");
    stream.reset();
    pending = dialer.Dial(*Address::Parse("10.0.0.1:443"), kSecond, [&](auto result) {
      status = result.status();
      if (result.ok()) stream = *std::move(result);
      if (cancel_inside) pending.reset();
    });
    network.Advance(2 * kSecond);
    return status;
  }

  MemoryNetwork network;
  ManualLoop loop;
  TlsPeerWish wish;
  std::function<void(std::unique_ptr<Stream>)> on_accept;
  std::unique_ptr<Listener> listener;
  std::unique_ptr<TlsPeer> peer;
  std::unique_ptr<Dialer::Pending> pending;
  std::unique_ptr<Stream> stream;
  bool cancel_inside = true;
};

struct Ear final : StreamReceiver {
  void OnData(std::string_view bytes) override { data += bytes; }
  void OnStreamEnd(const absl::Status&) override {}
  void OnWritable() override {}
  std::string data;
};

TEST(TlsDialer, HandsOverAStreamThatIsSecure) {
  DialWorld w({.pair = ChatPair(), .alpn = "\x02h2"});
  ASSERT_TRUE(w.Dial(Target(), {"h2", "http/1.1"}).ok());
  EXPECT_EQ(w.stream->alpn(), "h2");
  EXPECT_TRUE(w.stream->tls()->peer_verified);
  Ear ear;
  w.stream->SetReceiver(&ear);
  w.stream->Resume();
  w.stream->Write("question");
  w.peer->Write("answer");
  w.network.RunUntilIdle();
  EXPECT_EQ(ear.data, "answer");
  EXPECT_EQ(w.peer->received, "question");
}

TEST(TlsDialer, BelievesOnlyTheCertificateThatItShould) {
  const TestAuthority others("Other Authority");
  struct Case {
    TlsKeyPair pair;
    std::string name, says;           // Empty: accepted.
  };
  const Case cases[] = {
      {ChatPair(), "chat.example", ""},
      {Authority().Issue({.common_name = "x", .names = {"IP:10.0.0.1"}}), "10.0.0.1", ""},
      {Authority().Issue({.common_name = "x", .names = {"DNS:*.example"}}), "chat.example", "hostname mismatch"},
      {Authority().Issue({.common_name = "x", .names = {"DNS:*.a.example"}}), "b.a.example", ""},
      {Authority().Issue({.common_name = "x", .names = {"DNS:*.a.example"}}), "c.b.a.example", "hostname mismatch"},
      {ChatPair(), "other.example", "hostname mismatch"},
      {ChatPair(), "10.0.0.1", "IP address mismatch"},
      {Authority().Issue({.common_name = "x", .names = {"DNS:chat.example"}, .from_days = -9, .to_days = -1}),
       "chat.example", "certificate has expired"},
      {Authority().Issue({.common_name = "x", .names = {"DNS:chat.example"}, .from_days = 2}), "chat.example",
       "not yet valid"},
      {SelfSigned({.common_name = "chat.example"}), "chat.example", "self-signed certificate"},
      {others.Issue({.common_name = "chat.example"}), "chat.example", "unable to get local issuer"},
  };
  for (const Case& one : cases) {
    DialWorld w({.pair = one.pair});
    const absl::Status status = w.Dial(Target(one.name));
    if (one.says.empty()) {
      EXPECT_TRUE(status.ok()) << one.name << ": " << status;
      continue;
    }
    EXPECT_TRUE(absl::IsUnauthenticated(status)) << status;
    EXPECT_NE(S(status.message()).find(one.says), std::string_view::npos) << status;
    EXPECT_NE(S(status.message()).find("10.0.0.1:443: TLS with " + one.name), std::string_view::npos) << status;
    EXPECT_EQ(w.stream, nullptr);
    // Only where it is told to.
    DialWorld lax({.pair = one.pair});
    EXPECT_TRUE(lax.Dial(Target(one.name, {.insecure_skip_verify = true})).ok());
    EXPECT_FALSE(lax.stream->tls()->peer_verified);
  }
}

TEST(TlsDialer, ShowsItsOwnCertificateToWhoeverAsks) {
  const TlsKeyPair own = Authority().Issue({.common_name = "proxy"});
  DialWorld w({.pair = ChatPair(), .authorities = Authority().pem()});
  ASSERT_TRUE(w.Dial(Target("chat.example", {.authorities = Authority().pem(), .own = own})).ok());
  EXPECT_EQ(w.peer->subject(), "/CN=proxy");
}

TEST(TlsDialer, PlaintextBeforeTheHandshakeIsNeverTaken) {
  DialWorld w;
  w.on_accept = [&](std::unique_ptr<Stream> stream) {
    w.loop.Post([&w, stream = std::move(stream)]() mutable {
      stream->Write("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfake");
      w.peer = std::make_unique<TlsPeer>(std::move(stream), w.wish);
    });
  };
  const absl::Status status = w.Dial(Target());
  EXPECT_TRUE(absl::IsUnauthenticated(status)) << status;
  EXPECT_NE(S(status.message()).find("does it speak TLS"), std::string_view::npos) << status;
  EXPECT_EQ(w.stream, nullptr);
}

TEST(TlsDialer, TheHandshakeIsPartOfTheTimeToConnect) {
  DialWorld w;
  std::unique_ptr<Stream> silent;
  w.on_accept = [&](std::unique_ptr<Stream> stream) { silent = std::move(stream); };
  const absl::Status status = w.Dial(Target());
  EXPECT_TRUE(absl::IsDeadlineExceeded(status)) << status;
  EXPECT_NE(S(status.message()).find("no TLS handshake within 1000 ms"), std::string_view::npos) << status;
}

TEST(TlsDialer, ARefusedConnectionStaysOne) {
  DialWorld w;
  w.listener.reset();
  EXPECT_TRUE(absl::IsUnavailable(w.Dial(Target())));
}

TEST(TlsDialer, ACancelledDialIsNotHeardOfAgain) {
  DialWorld w;
  TlsDialer dialer(w.loop.dialer(), w.loop.deadlines(), Target(), {});
  for (int steps = 0; steps < 6; ++steps) {
    w.network.link_options.deliver_bytes = 100;
    auto pending = dialer.Dial(*Address::Parse("10.0.0.1:443"), kSecond, [](auto) { FAIL(); });
    if (steps > 0) w.loop.Post([&] { pending.reset(); });
    if (steps == 0) pending.reset();
    w.network.RunUntilIdle();
    w.network.Advance(2 * kSecond);
  }
}

TEST(TlsDialer, ResumesTheSessionsOfItsTarget) {
  for (const int version : {TLS1_2_VERSION, TLS1_3_VERSION}) {
    const auto context = ServerContext();
    MemoryNetwork network;
    ManualLoop loop(network);
    std::vector<std::unique_ptr<TlsEnd>> ends;
    auto listener = *loop.Listen(*Address::Parse("10.0.0.1:443"), [&](std::unique_ptr<Stream> stream) {
      ends.push_back(std::make_unique<TlsEnd>());
      TlsEnd& end = *ends.back();
      end.stream = std::make_unique<TlsStream>(context, std::move(stream), loop.deadlines(), end);
      end.stream->Start(loop.now() + kSecond);
    });
    const auto target = Target();
    TlsDialer dialer(loop.dialer(), loop.deadlines(), target, {"http/1.1"});
    std::vector<bool> resumed;
    for (int i = 0; i < 4; ++i) {
      std::unique_ptr<Stream> stream;
      Ear ear;
      auto pending = dialer.Dial(*Address::Parse("10.0.0.1:443"), kSecond,
                                 [&](auto result) { stream = *std::move(result); });
      network.RunUntilIdle();
      ASSERT_NE(stream, nullptr);
      stream->SetReceiver(&ear);
      stream->Resume();
      ends.back()->stream->Write("x");
      network.RunUntilIdle();
      EXPECT_EQ(ear.data, "x");
      resumed.push_back(stream->tls()->resumed);
      EXPECT_TRUE(stream->tls()->peer_verified);
      stream->Reset();                // A cut connection spoils no session.
    }
    EXPECT_EQ(resumed, (std::vector<bool>{false, true, true, true})) << version;
  }
}

}  // namespace
}  // namespace penstock
