// A small pseudo-random generator (splitmix64): fast, one word of state, the
// same numbers from the same seed on every machine. Not for secrets.
#pragma once

#include <cstdint>

namespace penstock {

struct Random {
  uint64_t state;

  explicit constexpr Random(uint64_t seed) : state(seed) {}

  constexpr uint64_t Next() {
    state += 0x9e3779b97f4a7c15u;
    uint64_t mixed = state;
    mixed = (mixed ^ (mixed >> 30)) * 0xbf58476d1ce4e5b9u;
    mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111ebu;
    return mixed ^ (mixed >> 31);
  }
  // 0 to n - 1; 0 for n = 0. The bias is below n / 2^32.
  constexpr uint32_t Below(uint32_t n) {
    return static_cast<uint32_t>(((Next() >> 32) * uint64_t{n}) >> 32);
  }
  // At least 0, below 1.
  constexpr double Unit() { return static_cast<double>(Next() >> 11) * 0x1.0p-53; }
};

}  // namespace penstock
