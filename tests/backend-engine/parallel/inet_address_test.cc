#include "backend-engine/parallel/inet_address.h"

#include <gtest/gtest.h>

namespace penstock::engine {
namespace {

TEST(InetAddress, APlaceIsANameOrAnAddressAndAPort) {
  for (const char* place : {"10.0.0.1:7100", "[fd00::1]:7100", "[::1]:1", "head:65535", "head-0.head_a.x:80"}) {
    EXPECT_TRUE(IsPlace(place)) << place;
  }
  for (const char* place :
       {"", ":7100", "10.0.0.1", "10.0.0.1:", "10.0.0.1:0", "10.0.0.1:70000", "10.0.0.1:71x", "10.0.0:7100",
        "10.0.0.256:7100", "fd00::1:7100", "[fd00::1]", "[head]:7100", "[]:7100", "he ad:7100", "-head:7100",
        ".:7100", "head\n:7100", "http://head:7100"}) {
    EXPECT_FALSE(IsPlace(place)) << place;
  }
  EXPECT_FALSE(IsPlace(std::string(254, 'a') + ":7100"));
}

TEST(InetAddress, IsShownAsItIsWritten) {
  std::string error;
  for (const std::string text : {"10.0.0.1:7100", "[fd00::1]:7100", "[::1]:9"}) {
    const auto found = Resolve(text, error);
    ASSERT_EQ(found.size(), 1u) << error;
    EXPECT_EQ(found[0].Text(), text);
    EXPECT_EQ(found[0].loopback(), text == "[::1]:9");
  }
  EXPECT_EQ(InetAddress::Loopback(80).Text(), "127.0.0.1:80");
  EXPECT_TRUE(InetAddress::Loopback().loopback());
}

TEST(InetAddress, ANameIsWhatTheSystemKnowsUnderIt) {
  std::string error;
  const auto found = Resolve("localhost:7100", error);
  ASSERT_FALSE(found.empty()) << error;
  EXPECT_TRUE(found[0].loopback());
  const std::string nobody(70, 'a');  // No label is so long, so nobody has to be asked.
  EXPECT_TRUE(Resolve(nobody + ":7100", error).empty());
  EXPECT_EQ(error.rfind(nobody + ": ", 0), 0u) << error;
}

}  // namespace
}  // namespace penstock::engine
