// One printed number starts everything that is random in a test. A failure
// prints the command that repeats it.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <string>

namespace penstock {

// With a sanitizer all code is several times as slow: a test takes the first of this
// many of its seeds.
#ifdef PENSTOCK_SANITIZED
inline constexpr int kSeedsDivisor = 10;
#else
inline constexpr int kSeedsDivisor = 1;
#endif

// Calls run(seed) for seeds 1 to `count` until a failure; PENSTOCK_SEED=n for that
// seed alone, PENSTOCK_SEEDS=n for the first n.
template <typename Run>
void ForEachSeed(int count, Run run) {
  const char* const told = std::getenv("PENSTOCK_SEED");
  const char* const more = std::getenv("PENSTOCK_SEEDS");
  const uint64_t first = told == nullptr ? 1 : std::strtoull(told, nullptr, 10);
  count = std::max(1, count / kSeedsDivisor);
  if (more != nullptr) count = std::atoi(more);
  if (told != nullptr) count = 1;
  const auto* const info = ::testing::UnitTest::GetInstance()->current_test_info();
  for (uint64_t seed = first; seed < first + static_cast<uint64_t>(count); ++seed) {
    SCOPED_TRACE("repeat: PENSTOCK_SEED=" + std::to_string(seed) + " ctest --preset dev -R '^" +
                 info->test_suite_name() + "." + info->name() + "$'");
    run(seed);
    if (::testing::Test::HasFailure()) return;
  }
}

}  // namespace penstock
