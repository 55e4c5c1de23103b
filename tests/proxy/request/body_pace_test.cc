#include "proxy/request/body_pace.h"

#include <gtest/gtest.h>

namespace penstock {
namespace {

constexpr MonoTime kNow = 1000 * kSecond;
constexpr MonoTime kGrace = 30 * kSecond;

TEST(BodyPace, EachSecondsWorthOfBytesBuysASecond) {
  BodyPace pace;
  pace.Begin(kNow, kGrace, 1024);
  EXPECT_EQ(pace.due(), kNow + kGrace);
  pace.Got(1024);
  EXPECT_EQ(pace.due(), kNow + kGrace + kSecond);
  pace.Got(10 * 1024 * 1024);
  EXPECT_EQ(pace.due(), kNow + kGrace + 10241 * kSecond);
}

TEST(BodyPace, SingleBytesAddUpExactly) {
  BodyPace pace;
  pace.Begin(kNow, kGrace, 1023);
  for (int i = 0; i < 1023; ++i) pace.Got(1);
  EXPECT_EQ(pace.due(), kNow + kGrace + kSecond);
}

TEST(BodyPace, TheTimeInWhichWeDoNotReadIsNotTheClients) {
  BodyPace pace;
  pace.Begin(kNow, kGrace, 1024);
  pace.Hold(kNow + kSecond);
  pace.Hold(kNow + 2 * kSecond);
  EXPECT_EQ(pace.due(), kNever);
  pace.GoOn(kNow + 101 * kSecond);
  EXPECT_EQ(pace.due(), kNow + kGrace + 100 * kSecond);
  pace.GoOn(kNow + 200 * kSecond);
  EXPECT_EQ(pace.due(), kNow + kGrace + 100 * kSecond);
}

TEST(BodyPace, WithoutARateEverythingIsFastEnough) {
  BodyPace pace;
  pace.Begin(kNow, kGrace, 0);
  pace.Got(1);
  EXPECT_EQ(pace.due(), kNever);
  pace.Begin(kNow, kGrace, 1);
  pace.End();
  pace.Got(1);
  EXPECT_EQ(pace.due(), kNever);
}

}  // namespace
}  // namespace penstock
