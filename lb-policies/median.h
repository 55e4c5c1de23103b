// The median of a few figures, without allocating and without sorting.
#pragma once

#include <cstddef>
#include <span>

namespace penstock::lb {

inline constexpr size_t kMedianMax = 64;

// The middle of `values`, or the mean of the middle two.
// REQUIRES: 1 to kMedianMax values, none negative, none NaN.
float Median(std::span<const float> values);

}  // namespace penstock::lb
