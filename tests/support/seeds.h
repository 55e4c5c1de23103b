// One printed number starts everything that is random in a test. A failure
// prints the command that repeats it.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <cstdlib>
#include <string>

namespace penstock {

// `count` seeds counted from PENSTOCK_SEED (1 where it is not set), or that one
// alone where it is set. Calls run(seed) for each until a failure.
template <typename Run>
void ForEachSeed(int count, Run run) {
  const char* const told = std::getenv("PENSTOCK_SEED");
  const uint64_t first = told == nullptr ? 1 : std::strtoull(told, nullptr, 10);
  const auto* const info = ::testing::UnitTest::GetInstance()->current_test_info();
  for (uint64_t seed = first; seed < first + (told == nullptr ? static_cast<uint64_t>(count) : 1); ++seed) {
    SCOPED_TRACE("repeat: PENSTOCK_SEED=" + std::to_string(seed) + " ctest --preset dev -R '^" +
                 info->test_suite_name() + "." + info->name() + "$'");
    run(seed);
    if (::testing::Test::HasFailure()) return;
  }
}

}  // namespace penstock
