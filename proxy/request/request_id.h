// Ids of requests whose clients brought none of their own, or none that counts.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <string_view>

#include "proxy/base/random.h"

namespace penstock {

inline constexpr size_t kRequestIdBytes = 32;

inline constexpr auto kHexPairs = [] {
  constexpr char kHex[] = "0123456789abcdef";
  std::array<std::array<char, 2>, 256> pairs{};
  for (size_t i = 0; i < pairs.size(); ++i) pairs[i] = {kHex[i >> 4], kHex[i & 15]};
  return pairs;
}();

// 128 random bits in hexadecimal, written to `out`.
inline std::string_view MakeRequestId(Random& random, char* out) {
  size_t at = 0;
  for (int word = 0; word < 2; ++word) {
    uint64_t bits = random.Next();
    for (int byte = 0; byte < 8; ++byte, bits >>= 8, at += 2) {
      std::memcpy(out + at, kHexPairs[bits & 255].data(), 2);
    }
  }
  return {out, at};
}

}  // namespace penstock
