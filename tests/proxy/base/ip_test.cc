#include "proxy/base/ip.h"

#include <gtest/gtest.h>

namespace penstock {
namespace {

TEST(Ip, IsReadInOneSpellingOnly) {
  for (const std::string_view text : {"10.0.0.7", "0.0.0.0", "::1", "fd00::7", "::ffff:1.2.3.4"}) {
    EXPECT_TRUE(ParseIp(text)) << text;
  }
  using namespace std::string_view_literals;
  for (const std::string_view text :
       {""sv, "10.0.0"sv, "10.0.0.256"sv, "010.0.0.1"sv, "1.2.3.4:80"sv, "[::1]"sv, "::1%eth0"sv, "x"sv,
        "1.2.3.4\0"sv, " 1.2.3.4"sv, "1.2.3.4 "sv, "::1::"sv}) {
    EXPECT_FALSE(ParseIp(text)) << text;
  }
  EXPECT_EQ(*ParseIp("1.2.3.4"), *ParseIp("::ffff:1.2.3.4"));
}

TEST(IpRange, HoldsWhatItsPrefixSays) {
  struct Case {
    std::string_view range, ip;
    bool inside;
  };
  for (const Case& c : {Case{"10.0.0.0/8", "10.255.0.1", true}, {"10.0.0.0/8", "11.0.0.1", false},
                        {"10.0.0.128/25", "10.0.0.127", false}, {"10.0.0.128/25", "10.0.0.129", true},
                        {"10.0.0.7", "10.0.0.7", true}, {"10.0.0.7", "10.0.0.6", false},
                        {"0.0.0.0/0", "1.2.3.4", true}, {"0.0.0.0/0", "::1", false},
                        {"::/0", "1.2.3.4", true}, {"fd00::/8", "fd12::1", true},
                        {"fd00::/8", "fe00::1", false}, {"::1", "::1", true}}) {
    EXPECT_EQ(ParseIpRange(c.range)->Contains(*ParseIp(c.ip)), c.inside) << c.range << " " << c.ip;
  }
}

TEST(IpRange, WithBitsBeyondItsPrefixIsRefused) {
  for (const std::string_view text : {"10.0.0.1/8", "10.0.0.0/33", "10.0.0.0/", "10.0.0.0/-1", "10.0.0.0/8x",
                                      "fd00::1/8", "::/129", "/8", "", "a/8", "10.0.0.0/ 8"}) {
    EXPECT_FALSE(ParseIpRange(text)) << text;
  }
}

TEST(Ip, OfAPeerStandsBeforeItsPort) {
  EXPECT_EQ(IpOfPeer("10.0.0.7:4711"), "10.0.0.7");
  EXPECT_EQ(IpOfPeer("[::1]:4711"), "::1");
  EXPECT_EQ(IpOfPeer("?"), "?");
}

}  // namespace
}  // namespace penstock
