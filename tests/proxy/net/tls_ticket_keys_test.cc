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

TEST(TlsTicketKeys, AnotherProcessOpensWhatThisOneSealedAndSealsWithAKeyOfItsOwn) {
  TlsTicketKeys old, next;
  old.RotateAt(kHour);
  const TlsTicketKeys::Key sealed = old.Current();
  ASSERT_TRUE(next.Import(old.Export()));
  EXPECT_NE(next.Current().name, sealed.name);
  ASSERT_TRUE(next.Find(sealed.name.data()).has_value());
  EXPECT_FALSE(next.Find(sealed.name.data())->current);
  EXPECT_EQ(next.Find(sealed.name.data())->key.digest, sealed.digest);
  // From one to the next it grows old as it would have here.
  TlsTicketKeys third, fourth;
  ASSERT_TRUE(third.Import(next.Export()));
  EXPECT_TRUE(third.Find(sealed.name.data()).has_value());
  ASSERT_TRUE(fourth.Import(third.Export()));
  EXPECT_FALSE(fourth.Find(sealed.name.data()).has_value());
}

TEST(TlsTicketKeys, WhatIsNoExportIsNotTaken) {
  TlsTicketKeys keys;
  const std::string one = keys.Export();
  for (const std::string& bytes : {std::string(), one.substr(1), one + "x", one + one + one + one}) {
    EXPECT_FALSE(keys.Import(bytes)) << bytes.size();
  }
  EXPECT_EQ(keys.Export(), one);
}

TEST(TlsTicketKeys, ATicketOfOneProcessIsResumedByTheNext) {
  for (const int version : {TLS1_2_VERSION, TLS1_3_VERSION}) {
    TlsTicketKeys old, next;
    std::string session;
    {
      TlsWorld w(ServerContext(ServerSettings(), old), {.highest = version});
      w.Run();
      session = w.peer->session();
    }
    for (const bool handed_over : {false, true}) {
      if (handed_over) {
        ASSERT_TRUE(next.Import(old.Export()));
      }
      TlsWorld w(ServerContext(ServerSettings(), next), {.highest = version, .session = session});
      w.Run();
      EXPECT_TRUE(w.open());
      EXPECT_EQ(w.peer->resumed(), handed_over);
    }
  }
}

}  // namespace
}  // namespace penstock
