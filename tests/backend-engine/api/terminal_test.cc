#include "backend-engine/api/terminal.h"

#include <gtest/gtest.h>

namespace penstock::engine {
namespace {

TEST(Terminal, ErrorsSayWhoSaysThemInOneLine) {
  testing::internal::CaptureStderr();
  PrintError("process 0 has ended");
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "penstock-engine: process 0 has ended\n");
  testing::internal::CaptureStdout();
  Print(stdout, "ready\n");
  EXPECT_EQ(testing::internal::GetCapturedStdout(), "ready\n");
}

}  // namespace
}  // namespace penstock::engine
