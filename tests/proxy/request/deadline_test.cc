#include "proxy/request/deadline.h"

#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace penstock {
namespace {

ClientDeadline Read(std::vector<Header> headers) { return ReadDeadline(headers); }

TEST(ClientDeadline, IsReadFromEachFieldInItsUnit) {
  EXPECT_EQ(Read({{"X-Request-Timeout-Ms", "1500"}}).time, 1500 * kMillisecond);
  EXPECT_EQ(Read({{"x-envoy-upstream-rq-timeout-ms", "250"}}).time, 250 * kMillisecond);
  EXPECT_EQ(Read({{"x-stainless-read-timeout", "2.5"}}).time, 2500 * kMillisecond);
  EXPECT_EQ(Read({{"x-stainless-timeout", "600"}}).time, 600 * kSecond);
  const std::pair<const char*, MonoTime> units[] = {{"1H", 3600 * kSecond}, {"2M", 120 * kSecond},
                                                    {"3S", 3 * kSecond},    {"4m", 4 * kMillisecond},
                                                    {"5000u", 5000},        {"6000n", 6}};
  for (const auto& [text, time] : units) {
    const ClientDeadline read = Read({{"grpc-timeout", text}});
    EXPECT_EQ(read.time, time) << text;
    EXPECT_TRUE(read.grpc);
  }
}

TEST(ClientDeadline, OfTheSdksBoundsTheWaitForAnAnswerAlone) {
  EXPECT_TRUE(Read({{"x-stainless-timeout", "60"}}).until_answer);
  EXPECT_FALSE(Read({{"x-request-timeout-ms", "60"}}).until_answer);
}

TEST(ClientDeadline, IsTheFirstValidOneOfSeveral) {
  const ClientDeadline both =
      Read({{"x-stainless-timeout", "60"}, {"grpc-timeout", "7S"}, {"x-request-timeout-ms", "900"}});
  EXPECT_EQ(both.time, 900 * kMillisecond);
  EXPECT_TRUE(both.grpc);
  EXPECT_FALSE(both.until_answer);
  EXPECT_EQ(Read({{"x-request-timeout-ms", "soon"}, {"x-stainless-timeout", "60"}}).time, 60 * kSecond);
}

TEST(ClientDeadline, IgnoresNonsense) {
  for (const char* const text : {"", "0", "-5", "1e3", "5 ", " 5", "+5", "five", "99999999999999999999", "0x10"}) {
    EXPECT_EQ(Read({{"x-request-timeout-ms", text}}).time, kNever) << text;
    EXPECT_EQ(Read({{"grpc-timeout", std::string(text) + "S"}}).time, kNever) << text;
  }
  for (const char* const text : {"5", "S", "123456789S", "5s", "5.5S"}) {
    EXPECT_EQ(Read({{"grpc-timeout", text}}).time, kNever) << text;
  }
  for (const char* const text : {"", "0", "-1", "nan", "inf", "None", "1e9"}) {
    EXPECT_EQ(Read({{"x-stainless-timeout", text}}).time, kNever) << text;
  }
}

TEST(ClientDeadline, DropsTheFieldsThatAreSpelledAnew) {
  std::vector<Header> headers{{"x-request-timeout-ms", "5"}, {"grpc-timeout", "5S"}, {"x-stainless-timeout", "5"},
                              {"x-request-timeout-ms", "odd"}};
  ReadDeadline(headers);
  EXPECT_TRUE(headers[0].dropped);
  EXPECT_TRUE(headers[1].dropped);
  EXPECT_FALSE(headers[2].dropped);
  EXPECT_FALSE(headers[3].dropped);
}

TEST(ClientDeadline, IsSpelledAsWhatIsLeft) {
  TimeText text;
  EXPECT_EQ(AsMillis(1500 * kMillisecond, text), "1500");
  EXPECT_EQ(AsMillis(-3, text), "1");
  EXPECT_EQ(AsGrpcTimeout(1500 * kMillisecond, text), "1500m");
  EXPECT_EQ(AsGrpcTimeout(24 * 3600 * kSecond, text), "86400000m");
}

}  // namespace
}  // namespace penstock
