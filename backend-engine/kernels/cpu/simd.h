// A vector of floats as wide as the instruction set that the including file is
// compiled for. Every file of this folder is compiled once a level, with that
// level's flags and PENSTOCK_LEVEL as its namespace; plain arithmetic on Vec is
// the compiler's vector extension, so that one source serves all levels and a
// machine without any of them gets the 128-bit one.
//
// Trap: a template or inline function of the C++ library that is used here may
// be emitted with this level's instructions and then be picked by the linker
// for the whole program. So these files call builtins and their own functions
// only.
#pragma once

#include <cstdint>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace penstock::engine::PENSTOCK_LEVEL {

#if defined(__AVX512F__)
inline constexpr int kLanes = 16;
#elif defined(__AVX2__)
inline constexpr int kLanes = 8;
#else
inline constexpr int kLanes = 4;
#endif

typedef float Vec __attribute__((vector_size(kLanes * 4)));
typedef int32_t IntVec __attribute__((vector_size(kLanes * 4)));
typedef uint32_t WordVec __attribute__((vector_size(kLanes * 4)));
typedef uint16_t HalfVec __attribute__((vector_size(kLanes * 2)));
typedef float VecAt __attribute__((vector_size(kLanes * 4), aligned(4), may_alias));
typedef uint32_t WordVecAt __attribute__((vector_size(kLanes * 4), aligned(4), may_alias));
typedef uint16_t HalfVecAt __attribute__((vector_size(kLanes * 2), aligned(2), may_alias));

inline Vec Load(const float* from) { return *reinterpret_cast<const VecAt*>(from); }
inline void Store(float* to, Vec value) { *reinterpret_cast<VecAt*>(to) = value; }
inline Vec Splat(float value) { return value - Vec{}; }

inline WordVec LoadWords(const void* from) { return *static_cast<const WordVecAt*>(from); }

// bfloat16 is the upper half of a float.
inline Vec LoadBf16(const uint16_t* from) {
  const HalfVec half = *reinterpret_cast<const HalfVecAt*>(from);
  return reinterpret_cast<Vec>(__builtin_convertvector(half, WordVec) << 16);
}

// To the nearest, ties to even; NaN stays NaN. The upper halves count.
inline WordVec Bf16Bits(Vec value) {
  const WordVec bits = reinterpret_cast<WordVec>(value);
  const WordVec rounded = bits + 0x7fffu + ((bits >> 16) & 1u);
  const WordVec nan = reinterpret_cast<WordVec>((bits & 0x7fffffffu) > 0x7f800000u);
  return (nan & (bits | 0x400000u)) | (~nan & rounded);
}

inline void StoreBf16(uint16_t* to, Vec value) {
  *reinterpret_cast<HalfVecAt*>(to) = __builtin_convertvector(Bf16Bits(value) >> 16, HalfVec);
}

inline Vec RoundedToBf16(Vec value) {
  return reinterpret_cast<Vec>(Bf16Bits(value) & 0xffff0000u);
}

inline uint16_t RoundToBf16(float value) {
  const uint32_t bits = __builtin_bit_cast(uint32_t, value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((bits >> 16) | 0x40u);
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

inline Vec Select(IntVec mask, Vec yes, Vec no) {
  return reinterpret_cast<Vec>((mask & reinterpret_cast<IntVec>(yes)) |
                               (~mask & reinterpret_cast<IntVec>(no)));
}

// Lanes added in halves: one fixed order.
inline float Sum(Vec value) {
  float lanes[kLanes];
  for (int i = 0; i < kLanes; ++i) lanes[i] = value[i];
#pragma GCC unroll 4
  for (int width = kLanes / 2; width > 0; width /= 2) {
#pragma GCC unroll 8
    for (int i = 0; i < width; ++i) lanes[i] += lanes[i + width];
  }
  return lanes[0];
}

// e^x to about 1e-7 of itself; 0 below -87, infinity never below 88, NaN for NaN.
inline Vec Exp(Vec x) {
  const Vec low = Splat(-87.33f);
  const Vec high = Splat(88.72f);
  const Vec kept = Select(x > high, high, x);
  const Vec magic = Splat(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer.
  const Vec shifted = kept * 1.44269504f + magic;
  const IntVec power = reinterpret_cast<IntVec>(shifted) - reinterpret_cast<IntVec>(magic);
  const Vec n = shifted - magic;
  const Vec r = kept - n * 0.693359375f + n * 2.12194440e-4f;
  Vec p = Splat(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  // 2^n in two factors: n may be 128, which has no float of its own.
  const IntVec half = power >> 1;
  const Vec first = reinterpret_cast<Vec>((half + 127) << 23);
  const Vec second = reinterpret_cast<Vec>((power - half + 127) << 23);
  return Select(x < low, Vec{}, p * first * second);
}

}  // namespace penstock::engine::PENSTOCK_LEVEL
