#include <gtest/gtest.h>

#include "config/field.h"

namespace penstock::config {
namespace {

struct Holder {
  absl::Duration time;
  uint64_t bytes = 0;
  double share = 0;
};

const Field kTime = {.key = "time",
                     .kind = Kind::kDuration,
                     .effect = {},
                     .min = 0,
                     .max = 7200,
                     .at = [](void* at) -> void* { return &static_cast<Holder*>(at)->time; }};
const Field kBytes = {.key = "bytes",
                      .kind = Kind::kBytes,
                      .effect = {},
                      .min = 0,
                      .max = 1e12,
                      .at = [](void* at) -> void* { return &static_cast<Holder*>(at)->bytes; }};
const Field kShare = {.key = "share",
                      .kind = Kind::kShare,
                      .effect = {},
                      .min = 0,
                      .max = 1,
                      .at = [](void* at) -> void* { return &static_cast<Holder*>(at)->share; }};

// How a value is shown after it was read; or what is wrong with it.
std::string Through(const Field& field, std::string_view text) {
  Holder holder;
  const std::string wrong = StoreScalar(field, text, &holder);
  return wrong.empty() ? ShowScalar(field, &holder) : wrong;
}

TEST(Value, IsShownInTheLargestUnitThatLeavesItWhole) {
  EXPECT_EQ(Through(kTime, "90s"), "90s");
  EXPECT_EQ(Through(kTime, "120s"), "2m");
  EXPECT_EQ(Through(kTime, "1.5s"), "1500ms");
  EXPECT_EQ(Through(kTime, "3600000ms"), "1h");
  EXPECT_EQ(Through(kTime, "0s"), "0s");
  EXPECT_EQ(Through(kBytes, "1024KiB"), "1MiB");
  EXPECT_EQ(Through(kBytes, "1000B"), "1000B");
  EXPECT_EQ(Through(kBytes, "0B"), "0B");
  EXPECT_EQ(Through(kShare, "12.5%"), "12.5%");
  EXPECT_EQ(Through(kShare, "0%"), "0%");
}

TEST(Value, WhatIsShownIsReadTheSame) {
  for (const char* text : {"1ms", "999ms", "1s", "59s", "1m", "61m", "2h", "0.25ms", "1.0005s"}) {
    EXPECT_EQ(Through(kTime, Through(kTime, text)), Through(kTime, text)) << text;
  }
}

TEST(Value, BelongsToItsUnit) {
  EXPECT_EQ(Through(kTime, "5KiB"),
            "\"5KiB\" is not a duration; write it like 15ms, 15s, 15m or 15h");
  EXPECT_EQ(Through(kBytes, "5s"),
            "\"5s\" is not a size; write it like 15B, 15KiB, 15MiB or 15GiB");
  EXPECT_EQ(Through(kShare, "50"), "\"50\" has no unit; write 15%");
}

TEST(Value, OutOfRangeNamesTheRange) {
  EXPECT_EQ(Through(kTime, "3h"), "\"3h\" is out of range; allowed: 0s to 2h");
}

}  // namespace
}  // namespace penstock::config
