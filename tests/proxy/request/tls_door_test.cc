#include "proxy/request/tls_door.h"

#include <gtest/gtest.h>

namespace penstock {
namespace {

TEST(TlsDoor, CountsEveryHandshakeByWhatBecameOfIt) {
  ListenerMetrics metrics;
  ListenerCells& cells = metrics.Of("public");
  TlsDoor door(cells);
  door.Opened({.resumed = false});
  door.Opened({.resumed = true});
  door.Opened({.resumed = true});
  door.Failed(TlsFailure::kAlpn, "no", "127.0.0.1:1", kSecond);
  EXPECT_EQ(cells.full.value(), 1);
  EXPECT_EQ(cells.resumed.value(), 2);
  EXPECT_EQ(cells.failures[static_cast<size_t>(TlsFailure::kAlpn)].value(), 1);
  EXPECT_EQ(kTlsFailureNames[static_cast<size_t>(TlsFailure::kProtocol)], "protocol");
  EXPECT_EQ(&metrics.Of("public"), &cells);
  EXPECT_EQ(metrics.All().size(), 1u);
}

TEST(TlsDoor, TellsOneFailureInAWhileAndHowManyOthersThereWere) {
  ListenerMetrics metrics;
  TlsDoor door(metrics.Of("public"));
  for (int i = 0; i < 1000; ++i) door.Failed(TlsFailure::kTimeout, "no handshake in time", "peer", kSecond);
  EXPECT_EQ(door.untold(), 999u);
  door.Failed(TlsFailure::kTimeout, "no handshake in time", "peer", kSecond + TlsDoor::kLogEvery);
  EXPECT_EQ(door.untold(), 0u);
}

}  // namespace
}  // namespace penstock
