// Time as our loops tell it: microseconds of a monotonic clock, constant during
// one turn of a loop. Only net/loop.cc reads the clock.
#pragma once

#include <cstdint>
#include <limits>

#include "absl/time/time.h"

namespace penstock {

using MonoTime = int64_t;  // Microseconds; only differences mean anything.

inline constexpr MonoTime kNever = std::numeric_limits<MonoTime>::max();
inline constexpr MonoTime kMillisecond = 1000;
inline constexpr MonoTime kSecond = 1'000'000;

inline MonoTime ToMicros(absl::Duration duration) { return absl::ToInt64Microseconds(duration); }

}  // namespace penstock
