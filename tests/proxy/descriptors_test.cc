#include "proxy/descriptors.h"

#include <sys/resource.h>

#include <gtest/gtest.h>

namespace penstock {
namespace {

TEST(Descriptors, TheSoftLimitIsRaisedToTheHardOne) {
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  rlimit low = before;
  low.rlim_cur = 200;
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &low), 0);
  EXPECT_EQ(RaiseDescriptorLimit(), before.rlim_max);
  rlimit after{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &after), 0);
  EXPECT_EQ(after.rlim_cur, before.rlim_max);
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
}

TEST(Descriptors, ConnectionsLeaveRoomForBackendsAndEverythingElse) {
  for (const uint64_t descriptors : {1u, 3u, 16u, 64u, 256u, 1024u, 65536u, 1048576u}) {
    const uint32_t connections = ConnectionsFor(descriptors, 4);
    EXPECT_GE(connections, 1u);
    if (descriptors < 16) continue;
    EXPECT_LT(2 * uint64_t{connections}, descriptors);
  }
  EXPECT_EQ(ConnectionsFor(64, 2), 16u);
  EXPECT_GT(ConnectionsFor(65536, 16), 30'000u);
  EXPECT_EQ(ConnectionsFor(UINT64_MAX, 16), UINT32_MAX);
}

}  // namespace
}  // namespace penstock
