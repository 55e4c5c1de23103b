#include "proxy/backends/backend_dialer.h"

#include <gtest/gtest.h>

#include "proxy/base/status.h"
#include "tests/support/manual_loop.h"
#include "tests/support/tls_world.h"

namespace penstock {
namespace {

TEST(BackendDialer, DialsAsTheBackendSaysAtTheMoment) {
  MemoryNetwork network;
  ManualLoop loop(network);
  std::vector<std::unique_ptr<TlsPeer>> peers;
  auto listener = *loop.Listen(*Address::Parse("10.0.0.1:443"), [&](std::unique_ptr<Stream> stream) {
    peers.push_back(std::make_unique<TlsPeer>(
        std::move(stream), TlsPeerWish{.server = true, .pair = ChatPair(), .alpn = "\x02h2"}));
  });
  const Backend backend(1, "pool", {.address = "10.0.0.1:443"});
  BackendDialer dialer(backend, loop.dialer(), loop.deadlines());
  dialer.SetAlpn({"h2", "http/1.1"});
  const auto dial = [&] {
    absl::StatusOr<std::unique_ptr<Stream>> dialled = absl::UnknownError("not called");
    auto pending = dialer.Dial(backend.address(), kSecond, [&](auto result) { dialled = std::move(result); });
    network.Advance(2 * kSecond);
    return dialled;
  };
  auto plain = dial();
  ASSERT_TRUE(plain.ok());
  EXPECT_EQ((*plain)->tls(), nullptr);
  backend.SetTls(Target("chat.example"));
  auto secure = dial();
  ASSERT_TRUE(secure.ok()) << secure.status();
  EXPECT_EQ((*secure)->alpn(), "h2");
  backend.SetTls(Target("other.example"));
  EXPECT_TRUE(absl::IsUnauthenticated(dial().status()));
  backend.SetTls(nullptr);
  EXPECT_EQ((*dial())->tls(), nullptr);
}

TEST(Fleet, ABackendWithOtherTlsSettingsIsAnother) {
  config::Config config;
  config::Pool pool;
  pool.name = "a";
  pool.backends = {{.name = "x", .address = "10.0.0.1:80"}};
  config.pools = {pool};
  const auto first = MakeFleet(std::make_shared<const config::Config>(config), nullptr);
  const auto same = MakeFleet(std::make_shared<const config::Config>(config), first.get());
  EXPECT_EQ(same->pools[0]->backends[0], first->pools[0]->backends[0]);
  config.pools[0].tls.enabled = true;
  const auto other = MakeFleet(std::make_shared<const config::Config>(config), same.get());
  EXPECT_NE(other->pools[0]->backends[0], first->pools[0]->backends[0]);
}

}  // namespace
}  // namespace penstock
