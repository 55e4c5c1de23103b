// What several policies need to choose: weight, chance and fair ties.
#pragma once

#include <cstddef>
#include <cstdint>

#include "lb-policies/policy.h"

namespace penstock::lb {

// The weight that counts now: a backend that has just come back takes a share.
inline float WeightNow(const Candidate& candidate) {
  const float weight = candidate.weight * candidate.slow_start;
  return weight > 1e-6f ? weight : 1e-6f;
}

// More random words out of the one that a request brings (splitmix64).
class Dice {
 public:
  explicit Dice(uint64_t seed) : state_(seed) {}

  uint64_t Next() {
    uint64_t z = (state_ += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }

  // A whole number from 0 to below `bound`. REQUIRES: bound > 0.
  size_t Below(size_t bound) {
    return static_cast<size_t>((static_cast<unsigned __int128>(Next()) * bound) >> 64);
  }

  // From 0 to below 1.
  float Unit() { return static_cast<float>(Next() >> 40) * 0x1p-24f; }

 private:
  uint64_t state_;
};

// Remembers the lowest score offered; among equals each is as likely.
class Lowest {
 public:
  void Offer(size_t index, float score, Dice& dice) {
    if (ties_ > 0 && !(score < score_)) {
      if (score != score_ || dice.Below(++ties_) != 0) return;
    } else {
      ties_ = 1;
    }
    index_ = index;
    score_ = score;
  }

  // REQUIRES: something was offered.
  size_t index() const { return index_; }

 private:
  size_t index_ = 0;
  size_t ties_ = 0;
  float score_ = 0;
};

}  // namespace penstock::lb
