#include "proxy/net/address.h"

#include <gtest/gtest.h>

namespace penstock {
namespace {

TEST(Address, BothFamiliesAreReadAndWritten) {
  const auto v4 = Address::Parse("127.0.0.1:8080");
  ASSERT_TRUE(v4.ok());
  EXPECT_EQ(v4->text, "127.0.0.1:8080");
  EXPECT_EQ(v4->port(), 8080);
  EXPECT_TRUE(v4->loopback());
  const auto v6 = Address::Parse("[2001:DB8::1]:443");
  ASSERT_TRUE(v6.ok());
  EXPECT_EQ(v6->text, "[2001:db8::1]:443");
  EXPECT_EQ(v6->port(), 443);
  EXPECT_FALSE(v6->loopback());
  EXPECT_TRUE(Address::Parse("[::1]:1")->loopback());
  EXPECT_TRUE(Address::Parse("[::ffff:127.0.0.1]:1")->loopback());
  EXPECT_FALSE(Address::Parse("0.0.0.0:1")->loopback());
}

TEST(Address, AHostNameIsNotFoundAndNonsenseIsInvalid) {
  EXPECT_EQ(Address::Parse("engine-1.local:9001").status().code(), absl::StatusCode::kNotFound);
  for (const char* text : {"",
                           ":",
                           ":80",
                           "a",
                           "a:",
                           "a:x",
                           "a:65536",
                           "a:-1",
                           "a:+1",
                           "::1:80",
                           "[::1]",
                           "[::1:80",
                           "[x]:80",
                           "[]:80",
                           "1.2.3:80",
                           "1.2.3.4.5:80",
                           "256.1.1.1:80",
                           "a b:80",
                           "a/b:80",
                           "[1.2.3.4]:80"}) {
    EXPECT_EQ(Address::Parse(text).status().code(), absl::StatusCode::kInvalidArgument) << text;
  }
  EXPECT_FALSE(SplitHostPort(std::string(300, 'a') + ":80").ok());
}

TEST(Address, HostAndPortAreSplit) {
  const auto split = SplitHostPort("[::1]:80");
  ASSERT_TRUE(split.ok());
  EXPECT_EQ(split->host, "::1");
  EXPECT_EQ(split->port, 80);
  EXPECT_EQ(SplitHostPort("name:1")->host, "name");
}

}  // namespace
}  // namespace penstock
