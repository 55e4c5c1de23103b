// The parts of choosing a token: one block works on one row of logits, all its
// threads call each of these together and get the same result.
//
// Weights are summed as whole numbers of 2^-44 of the largest one, so that a
// sum does not depend on the order of its parts; what is lighter weighs nothing.
// Nothing is sorted. "The tokens most likely first, equals by their number" is
// an order in which top_k, top_p and min_p each keep a prefix, and in which the
// draw is a place: all are found by narrowing a threshold, eight times as close
// with each walk over the row.
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

// The end of a prefix of the tokens, most likely first: all that weigh more than
// `bits`, and the first `equals` of those that weigh exactly that.
struct Prefix {
  uint32_t bits;
  Measure equals;
  Measure weight;  // Of the whole prefix.
};

// The shortest prefix whose measure reaches `goal`.
// REQUIRES: 1 <= goal <= the measure of all; weights are in [0, 1].
template <typename MeasureOf>
__device__ Prefix Reach(const WorkRow& row, Measure goal, const MeasureOf& measure) {
  constexpr int kParts = 8;
  uint32_t low = 0, high = kBitsOfOne + 1;  // From low on it is enough, from high on it is not.
  while (high - low > 1) {
    const uint32_t step = (high - low + kParts - 1) / kParts;
    Measure sums[kParts] = {};
    row.ForEach([&](int, float weight) {
      const uint32_t own = __float_as_uint(weight);
      const Measure size = measure(own);
#pragma unroll
      for (int part = 1; part < kParts; ++part) sums[part] += own >= low + part * step ? size : 0;
    });
    uint32_t next_low = low, next_high = high;
#pragma unroll
    for (int part = 1; part < kParts; ++part) {
      const Measure sum = ReduceBlock(sums[part], Measure{0}, Plus());
      const uint32_t at = low + part * step;
      if (at >= high) continue;
      if (sum >= goal) next_low = at;
      if (sum < goal && at < next_high) next_high = at;
    }
    low = next_low;
    high = next_high;
  }
  const Measure heavier = SumFrom(row, low + 1, measure);
  const Measure each = measure(low);
  const Measure equals = (goal - heavier + each - 1) / each;
  const Measure weight = SumFrom(row, low + 1, FixedWeight) + equals * FixedWeight(low);
  return {low, equals, weight};
}

// The first token at which the sum of `measure` over tokens 0, 1, ... reaches `goal`:
// each warp adds up a part of what is left, and the part where it happens is next.
// REQUIRES: 1 <= goal <= the sum over all.
template <typename MeasureOf>
__device__ int Find(const WorkRow& row, Measure goal, const MeasureOf& measure) {
  __shared__ Measure of_part[kSampleWarps];
  const int warp = threadIdx.x / kWarpSize, lane = threadIdx.x % kWarpSize;
  int first = 0, count = row.vocab;
  while (count > 1) {
    const int each = (count + kSampleWarps - 1) / kSampleWarps;
    const int begin = min(first + warp * each, first + count);
    const int end = min(begin + each, first + count);
    Measure sum = 0;
    for (int i = begin + lane; i < end; i += kWarpSize) sum += measure(row.Bits(i));
    sum = ReduceLanes(sum, Plus());
    __syncthreads();  // The last turn's readers are done.
    if (lane == 0) of_part[warp] = sum;
    __syncthreads();
    int part = 0;
    while (part + 1 < kSampleWarps && of_part[part] < goal) goal -= of_part[part++];
    count = min(each, first + count - (first + part * each));
    first += part * each;
  }
  return first;
}

}  // namespace penstock::engine::cuda
