// Philox 4x32-10: a keyed bijection from counters to random numbers (Salmon et
// al., "Parallel random numbers: as easy as 1, 2, 3"). No state: number n of a
// seed is the same whoever asks, whenever.
#pragma once

#include <array>
#include <cstdint>

namespace penstock::engine {

constexpr std::array<uint32_t, 4> Philox(std::array<uint32_t, 4> counter, uint64_t key) {
  uint32_t key0 = static_cast<uint32_t>(key);
  uint32_t key1 = static_cast<uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = uint64_t{0xD2511F53} * counter[0];
    const uint64_t b = uint64_t{0xCD9E8D57} * counter[2];
    counter = {static_cast<uint32_t>(b >> 32) ^ counter[1] ^ key0, static_cast<uint32_t>(b),
               static_cast<uint32_t>(a >> 32) ^ counter[3] ^ key1, static_cast<uint32_t>(a)};
    key0 += 0x9E3779B9;
    key1 += 0xBB67AE85;
  }
  return counter;
}

// Evenly from [0, 1), in steps of 2^-53.
constexpr double PhiloxUniform(uint64_t seed, uint64_t index) {
  const auto bits = Philox({static_cast<uint32_t>(index), static_cast<uint32_t>(index >> 32), 0, 0},
                           seed);
  const uint64_t wide = (uint64_t{bits[0]} << 32) | bits[1];
  return static_cast<double>(wide >> 11) * 0x1p-53;
}

}  // namespace penstock::engine
