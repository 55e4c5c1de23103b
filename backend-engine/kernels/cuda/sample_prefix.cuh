// The most likely tokens of a row, and the token at a place of their sum.
//
// Nothing is sorted. "The tokens most likely first, equals by their number" is
// an order in which top_k, top_p and min_p each keep a prefix, and in which the
// draw is a place: all are found by narrowing a threshold, eight times as close
// with each walk over the row, until what lies between the bounds fits shared memory.
#pragma once

#include "backend-engine/kernels/cuda/sample.cuh"

namespace penstock::engine::cuda {

// Weights that lie between two bounds, once they are few.
constexpr int kFewMax = 4096;
constexpr uint32_t kFewWithin = 1u << 21;  // Bounds further apart hold more than that.
__device__ __forceinline__ uint32_t* FewWeights() {
  __shared__ uint32_t few[kFewMax];
  return few;
}

// Puts the weights of [low, high) there. -1: they are too many.
__device__ __forceinline__ int GatherFew(const WorkRow& row, uint32_t low, uint32_t high) {
  __shared__ int place;
  if (high - low > kFewWithin) return -1;
  const auto within = [&](float weight) {
    const uint32_t own = __float_as_uint(weight);
    return own >= low && own < high;
  };
  int own_count = 0;
  row.ForEach([&](int, float weight) { own_count += within(weight) ? 1 : 0; });
  const int count = ReduceBlock(own_count, 0, Plus());
  if (count > kFewMax) return -1;
  if (threadIdx.x == 0) place = 0;
  __syncthreads();
  row.ForEach([&](int, float weight) {
    if (within(weight)) FewWeights()[atomicAdd(&place, 1)] = __float_as_uint(weight);
  });
  __syncthreads();
  return count;
}

// The end of a prefix of the tokens, most likely first: all that weigh more than
// `bits`, and the first `equals` of those that weigh exactly that.
struct Prefix {
  uint32_t bits;
  Measure equals;
};
__device__ __forceinline__ Measure WeightOf(const WorkRow& row, const Prefix& prefix) {
  return SumFrom(row, prefix.bits + 1, FixedWeight) + prefix.equals * FixedWeight(prefix.bits);
}

// The shortest prefix whose measure reaches `goal`.
// REQUIRES: 1 <= goal <= the measure of all; weights are in [0, 1].
template <typename MeasureOf>
__device__ Prefix Reach(const WorkRow& row, Measure goal, const MeasureOf& measure) {
  constexpr int kParts = 8;
  uint32_t low = 0, high = kBitsOfOne + 1;  // From low on it is enough, from high on it is not.
  Measure heavier = 0;                      // What is from high on.
  int few = -1;                             // Weights between them, once they are gathered,
  Measure beyond = 0;                       // and what was from high on then.
  while (high - low > 1) {
    const uint32_t step = (high - low + kParts - 1) / kParts;
    Measure sums[kParts] = {};
    const auto add = [&](uint32_t own) {
      const Measure size = measure(own);
#pragma unroll
      for (int part = 1; part < kParts; ++part) sums[part] += own >= low + part * step ? size : 0;
    };
    if (few < 0) {
      row.ForEach([&](int, float weight) { add(__float_as_uint(weight)); });
    } else {
      for (int i = threadIdx.x; i < few; i += kSampleThreads) add(FewWeights()[i]);
    }
    uint32_t next_low = low, next_high = high;
    Measure next_heavier = heavier;
#pragma unroll
    for (int part = 1; part < kParts; ++part) {
      const Measure sum = ReduceBlock(sums[part], Measure{0}, Plus()) + beyond;
      const uint32_t at = low + part * step;
      if (at >= high) continue;
      if (sum >= goal) next_low = at;
      if (sum < goal && at < next_high) {
        next_high = at;
        next_heavier = sum;
      }
    }
    low = next_low;
    high = next_high;
    heavier = next_heavier;
    if (few >= 0) continue;
    few = GatherFew(row, low, high);
    if (few >= 0) beyond = heavier;
  }
  const Measure each = measure(low);
  return {low, (goal - heavier + each - 1) / each};
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
