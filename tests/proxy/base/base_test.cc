// The small things of proxy/base: arena, random numbers, suggestions, the log.
#include <gtest/gtest.h>

#include <array>
#include <string>
#include <vector>

#include "proxy/base/arena.h"
#include "proxy/base/log.h"
#include "proxy/base/random.h"
#include "proxy/base/suggest.h"

namespace penstock {
namespace {

TEST(Arena, GivesOutAlignedMemoryUntilItsLimit) {
  Arena arena(100, 1000);
  EXPECT_EQ(arena.Copy("hello"), "hello");
  const auto numbers = arena.Array<uint64_t>(5);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(numbers.data()) % alignof(uint64_t), 0u);
  EXPECT_NE(arena.Allocate(500), nullptr);
  EXPECT_EQ(arena.Allocate(600), nullptr);
  EXPECT_EQ(arena.Copy(std::string(2000, 'x')).data(), nullptr);
  EXPECT_TRUE(arena.Array<uint64_t>(SIZE_MAX / 8).empty());
  EXPECT_LE(arena.bytes_held(), 1000u);
}

TEST(Arena, KeepsItsFirstChunkForTheNextUse) {
  Arena arena(100, 1000);
  const std::string_view first = arena.Copy("first");
  arena.Copy(std::string(300, 'x'));
  arena.Reset();
  EXPECT_EQ(arena.bytes_held(), 100u);
  EXPECT_EQ(arena.Copy("again").data(), first.data());
}

TEST(Random, TheSameSeedGivesTheSameNumbersInRange) {
  Random a(7), b(7), c(8);
  EXPECT_EQ(a.Next(), b.Next());
  EXPECT_NE(a.Next(), c.Next());
  std::array<int, 5> seen{};
  for (int i = 0; i < 5000; ++i) {
    ++seen[a.Below(5)];
    const double unit = a.Unit();
    ASSERT_TRUE(unit >= 0 && unit < 1);
  }
  for (const int count : seen) EXPECT_NEAR(count, 1000, 150);
  EXPECT_EQ(a.Below(0), 0u);
}

TEST(Suggest, TheNearestKnownWordIsOfferedOnlyWhenNear) {
  const std::vector<std::string_view> known = {"least_request", "round_robin", "random"};
  EXPECT_EQ(Nearest("least_requests", known), "least_request");
  EXPECT_EQ(Nearest("randmo", known), "random");
  EXPECT_EQ(Nearest("weighted", known), "");
}

TEST(Log, ALineStaysOneLineAndSaysUtc) {
  ::testing::internal::CaptureStderr();
  LogWarn("backend {}: {}", "b\n1", "gone");
  SetLogLevel(LogLevel::kError);
  LogWarn("not written");
  SetLogLevel(LogLevel::kInfo);
  const std::string text = ::testing::internal::GetCapturedStderr();
  EXPECT_TRUE(text.ends_with("Z warning backend b?1: gone\n")) << text;
  EXPECT_EQ(text.find('\n'), text.size() - 1);
}

}  // namespace
}  // namespace penstock
