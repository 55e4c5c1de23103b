#include "proxy/request/recent_times.h"

#include <algorithm>
#include <cmath>

namespace penstock {
namespace {

constexpr double kPerDoubling = 4;

}  // namespace

void RecentTimes::Turn(MonoTime now) {
  if (now - began_ < kWindow) return;
  previous_ = now - began_ < 2 * kWindow ? current_ : Counts{};
  current_ = {};
  began_ = now;
}

void RecentTimes::Add(MonoTime took, MonoTime now) {
  Turn(now);
  const double doublings = std::log2(static_cast<double>(std::max(took, kMillisecond)) / kMillisecond);
  ++current_[std::min(static_cast<size_t>(doublings * kPerDoubling), kBuckets - 1)];
}

std::optional<MonoTime> RecentTimes::Quantile(double share, MonoTime now) {
  Turn(now);
  uint64_t total = 0;
  for (size_t i = 0; i < kBuckets; ++i) total += current_[i] + previous_[i];
  if (total < kEnough) return std::nullopt;
  const double wanted = share * static_cast<double>(total);
  uint64_t below = 0;
  size_t bucket = 0;
  for (; bucket < kBuckets - 1; ++bucket) {
    below += current_[bucket] + previous_[bucket];
    if (static_cast<double>(below) >= wanted) break;
  }
  const double upper = std::exp2((static_cast<double>(bucket) + 1) / kPerDoubling);
  return static_cast<MonoTime>(upper * kMillisecond);
}

}  // namespace penstock
