#include "proxy/net/tls_ticket_keys.h"

#include <gtest/gtest.h>
#include <openssl/ssl.h>

#include "tests/support/tls_world.h"

namespace penstock {
namespace {

constexpr MonoTime kHour = TlsTicketKeys::kRotation;

TEST(TlsTicketKeys, ANewKeyEachHourAndTheLastThreeAreKept) {
  TlsTicketKeys keys;
  keys.RotateAt(kHour);
  const TlsTicketKeys::Key first = keys.Current();
  keys.RotateAt(2 * kHour - 1);
  EXPECT_EQ(keys.Current().name, first.name);
  ASSERT_TRUE(keys.Find(first.name.data()).has_value());
  EXPECT_TRUE(keys.Find(first.name.data())->current);
  for (int hour = 2; hour <= 3; ++hour) {
    keys.RotateAt(hour * kHour);
    EXPECT_NE(keys.Current().name, first.name);
    ASSERT_TRUE(keys.Find(first.name.data()).has_value());
    EXPECT_FALSE(keys.Find(first.name.data())->current);
    EXPECT_EQ(keys.Find(first.name.data())->key.cipher, first.cipher);
  }
  keys.RotateAt(4 * kHour);
  EXPECT_FALSE(keys.Find(first.name.data()).has_value());
}

TEST(TlsTicketKeys, ATicketLivesAsLongAsItsKey) {
  for (const int version : {TLS1_2_VERSION, TLS1_3_VERSION}) {
    TlsTicketKeys keys;
    keys.RotateAt(kHour);
    const auto context = ServerContext(ServerSettings(), keys);
    std::string session;
    {
      TlsWorld w(context, {.highest = version});
      w.Run();
      session = w.peer->session();
    }
    const auto resumed = [&] {
      TlsWorld w(context, {.highest = version, .session = session});
      w.Run();
      EXPECT_TRUE(w.open());
      return w.peer->resumed();
    };
    EXPECT_TRUE(resumed());
    keys.RotateAt(2 * kHour);
    EXPECT_TRUE(resumed());
    keys.RotateAt(3 * kHour);
    keys.RotateAt(4 * kHour);
    EXPECT_FALSE(resumed());
  }
}

}  // namespace
}  // namespace penstock
