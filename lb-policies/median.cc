// Floats that are not negative are ordered as their bits are, read as integers. So
// the middle one is found bit by bit from the top: is it at or above this value?
// Each question is a count over a fixed number of integers, which compiles to a
// few vector instructions; a quickselect of 64 takes three times as long, lost in
// branches that nobody can predict. For a few values it is the other way round.
#include "lb-policies/median.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>

namespace penstock::lb {
namespace {

constexpr size_t kFew = 24;

using Bits = std::array<int32_t, kMedianMax>;

int32_t CountBelow(const Bits& bits, int32_t bound) {
  int32_t count = 0;
  for (size_t i = 0; i < kMedianMax; ++i) count += bits[i] < bound;
  return count;
}

float OfFew(std::span<const float> values) {
  std::array<float, kFew> sorted;
  const size_t half = values.size() / 2;
  std::copy(values.begin(), values.end(), sorted.begin());
  float* const middle = sorted.data() + half;
  std::nth_element(sorted.data(), middle, sorted.data() + values.size());
  if (values.size() % 2 == 1) return *middle;
  return (*middle + *std::max_element(sorted.data(), middle)) / 2;
}

}  // namespace

float Median(std::span<const float> values) {
  if (values.size() <= kFew) return OfFew(values);
  Bits bits;
  bits.fill(INT32_MAX);
  // + 0 makes a negative zero positive.
  for (size_t i = 0; i < values.size(); ++i) bits[i] = std::bit_cast<int32_t>(values[i] + 0.0f);
  const auto half = static_cast<int32_t>(values.size() / 2);
  int32_t floor = 0;  // At most the middle value; `below` values are lower than it.
  int32_t below = 0;
  int32_t not_above = static_cast<int32_t>(values.size());
  for (int bit = 30; bit >= 0 && not_above - below > 1; --bit) {
    const int32_t bound = floor | (1 << bit);
    const int32_t count = CountBelow(bits, bound);
    const bool higher = count <= half;
    floor = higher ? bound : floor;
    below = higher ? count : below;
    not_above = higher ? not_above : count;
  }
  int32_t middle = INT32_MAX;
  int32_t lower = 0;
  for (size_t i = 0; i < kMedianMax; ++i) {
    middle = std::min(middle, bits[i] >= floor ? bits[i] : INT32_MAX);
    lower = std::max(lower, bits[i] < floor ? bits[i] : 0);
  }
  const auto upper_half = std::bit_cast<float>(middle);
  if (values.size() % 2 == 1 || below < half) return upper_half;
  return (upper_half + std::bit_cast<float>(lower)) / 2;
}

}  // namespace penstock::lb
