// How long something took of late, as a histogram of fixed size: what share of the
// times was below what. Two windows side by side, so that old times are forgotten
// without keeping each of them.
//
// Threads: the worker's thread only. Time is told.
#pragma once

#include <array>
#include <cstdint>
#include <optional>

#include "proxy/base/time.h"

namespace penstock {

class RecentTimes {
 public:
  static constexpr MonoTime kWindow = 30 * kSecond;
  static constexpr uint32_t kEnough = 20;  // Fewer times than this say nothing.

  void Add(MonoTime took, MonoTime now);
  // The time that `share` of those of the last one to two windows kept below, at most a
  // fifth too high (a bucket's width); nullopt: there were too few.
  std::optional<MonoTime> Quantile(double share, MonoTime now);

 private:
  // Four buckets for each doubling, from 1 ms to a quarter of an hour.
  static constexpr size_t kBuckets = 80;
  using Counts = std::array<uint32_t, kBuckets>;

  void Turn(MonoTime now);

  Counts current_{}, previous_{};
  MonoTime began_ = 0;                     // The current window.
};

}  // namespace penstock
