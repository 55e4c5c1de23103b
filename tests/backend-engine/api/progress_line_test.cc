#include "backend-engine/api/progress_line.h"

#include <gtest/gtest.h>

namespace penstock::engine {
namespace {

TEST(ProgressLine, DrawsABarOverItselfOnATerminal) {
  ProgressLine line("loading m", true);
  EXPECT_EQ(line.At(0.5, 0), "\rloading m [===============               ]  50 %\033[K");
  EXPECT_EQ(line.At(2, 1), "\rloading m [==============================] 100 %\033[K");
  EXPECT_EQ(line.End(), "\r\033[K");
}

TEST(ProgressLine, SaysALineNowAndThenElsewhereAndNothingOfWhatIsSoonDone) {
  ProgressLine line("loading m", false);
  EXPECT_EQ(line.At(0.1, kSecond), "");
  EXPECT_EQ(line.At(0.2, 2 * kSecond), "");
  EXPECT_EQ(line.At(0.25, kSecond + ProgressLine::kEvery), "loading m: 25 %\n");
  EXPECT_EQ(line.At(0.3, 2 * kSecond + ProgressLine::kEvery), "");
  EXPECT_EQ(line.End(), "");
}

}  // namespace
}  // namespace penstock::engine
