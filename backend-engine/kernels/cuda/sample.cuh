// The parts of choosing a token: one block works on one row of logits, all its
// threads call each of these together and get the same result.
//
// Weights are summed as whole numbers of 2^-44 of the largest one, so that a
// sum does not depend on the order of its parts; what is lighter weighs nothing.
#pragma once

#include "backend-engine/kernels/cuda/cuda_kernels.h"
#include "backend-engine/kernels/cuda/numbers.cuh"

namespace penstock::engine::cuda {

constexpr int kSampleThreads = 1024;
constexpr int kSampleWarps = kSampleThreads / kWarpSize;
constexpr uint32_t kBitsOfOne = 0x3f800000u;

using Measure = unsigned long long;

// A float in [0, 1] in units of 2^-44.
__device__ __forceinline__ Measure FixedWeight(uint32_t bits) {
  const int shift = static_cast<int>(bits >> 23) - 106;  // 2^(e - 150) * 2^44
  const Measure mantissa = (bits & 0x7fffffu) | 0x800000u;
  if (shift >= 0) return mantissa << shift;
  return shift > -24 ? mantissa >> -shift : 0;
}

// Larger keys: larger numbers, and of equal numbers the one that comes first. Never 0.
__device__ __forceinline__ Measure OrderKey(float number, int token) {
  const uint32_t bits = __float_as_uint(number + 0.0f);  // -0 becomes 0.
  const uint32_t ordered = (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
  return (static_cast<Measure>(ordered) << 32) | (0xffffffffu - static_cast<uint32_t>(token));
}
__device__ __forceinline__ int TokenOfKey(Measure key) {
  return static_cast<int>(0xffffffffu - static_cast<uint32_t>(key));
}

// The model's own logits of a row, and this thread's share of a walk over them.
struct RawRow {
  const SampleCall& call;
  int row;

  __device__ float At(int token) const {
    const int64_t rank = token / call.padded;
    return call.logits[(rank * call.logit_rows + row) * call.padded + token % call.padded];
  }
  template <typename Visit>
  __device__ void ForEach(const Visit& visit) const {
    for (int rank = 0; rank < call.ranks; ++rank) {
      const float* part = call.logits + (int64_t{rank} * call.logit_rows + row) * call.padded;
      const int first = rank * call.padded;
      const int count = min(call.padded, call.vocab - first);
      for (int i = threadIdx.x; i < count; i += kSampleThreads) visit(first + i, part[i]);
    }
  }
};

// The same of a row that lies in one piece.
struct WorkRow {
  float* numbers;
  int vocab;

  __device__ uint32_t Bits(int token) const { return __float_as_uint(numbers[token]); }
  template <typename Visit>
  __device__ void ForEach(const Visit& visit) const {
    for (int i = threadIdx.x; i < vocab; i += kSampleThreads) visit(i, numbers[i]);
  }
};

// The largest key below `limit`, or 0 where there is none.
template <typename Row>
__device__ Measure LargestKey(const Row& row, Measure limit) {
  Measure largest = 0;
  row.ForEach([&](int token, float number) {
    const Measure key = OrderKey(number, token);
    if (key < limit && key > largest) largest = key;
  });
  return ReduceBlock(largest, Measure{0}, Larger());
}

template <typename Row>
__device__ bool AllFinite(const Row& row) {
  int wrong = 0;
  row.ForEach([&](int, float number) {
    wrong |= (__float_as_uint(number) & 0x7f800000u) == 0x7f800000u ? 1 : 0;
  });
  return ReduceBlock(wrong, 0, Larger()) == 0;
}

// The sum of `measure` over the weights of at least `bits`.
template <typename MeasureOf>
__device__ Measure SumFrom(const WorkRow& row, uint32_t bits, const MeasureOf& measure) {
  Measure sum = 0;
  row.ForEach([&](int, float weight) {
    const uint32_t own = __float_as_uint(weight);
    if (own >= bits) sum += measure(own);
  });
  return ReduceBlock(sum, Measure{0}, Plus());
}

}  // namespace penstock::engine::cuda
