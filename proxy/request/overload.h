// When the proxy itself has too much to do: how full its memory is, how late its
// turns are, and what is given up for it, the cheapest first.
//
// Plain arithmetic on samples that are told: no clock, no file, no socket.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <string_view>

#include "config/config.h"
#include "proxy/base/time.h"

namespace penstock {

// Each level does what those before it do, and more.
enum class Pressure : uint8_t {
  kNone,
  kShorten,  // Idle client connections are kept for a shorter time.
  kClose,    // Client connections close after their answer; caches are emptied.
  kReject,   // New requests are answered 503 overloaded.
  kStop,     // No connection is accepted; they wait in the kernel.
};
inline constexpr size_t kPressures = 5;

std::string_view Name(Pressure level);

// Memory in use, as a share of what there may be, turned into a level. A level is
// entered at once and left a little below where it was entered, so that a figure
// that trembles around a threshold does not.
class MemoryGuard {
 public:
  static constexpr double kStepBack = 0.03;

  explicit MemoryGuard(const config::Overload& settings) { SetThresholds(settings); }
  void SetThresholds(const config::Overload& settings);

  // `share` of the memory is in use now.
  Pressure Sample(double share);
  Pressure level() const { return level_; }
  // What is left of the time for which idle connections are kept: 1 below kShorten,
  // 0 from kClose on.
  double idle_share() const;

 private:
  std::array<double, kPressures> from_{};  // Where each level is entered.
  double share_ = 0;
  Pressure level_ = Pressure::kNone;
};

// How late turns have been of late: the median of the last few samples, so that one
// long turn (or a process that was stopped) sheds nothing, and a loop that cannot
// keep up does.
class StandingDelay {
 public:
  static constexpr size_t kSamples = 5;

  void Add(MonoTime late) { samples_[next_++ % kSamples] = late; }
  MonoTime median() const;

 private:
  std::array<MonoTime, kSamples> samples_{};
  size_t next_ = 0;
};

// The share of new requests to refuse at such a delay: 0 up to `from`, 1 from `full`
// on. `from` 0: never.
double ShedChance(MonoTime delay, MonoTime from, MonoTime full);

// How fast things may be taken: so many a second, with a burst of a tenth of that.
class Pace {
 public:
  void SetRate(double per_second) { per_second_ = per_second; }  // 0: no limit.

  void Take(MonoTime now);
  // When the next one may be taken; `now` or earlier: now.
  MonoTime NextAt(MonoTime now) const;

 private:
  double burst() const { return std::max(1.0, per_second_ / 10); }

  double per_second_ = 0;
  double tokens_ = 0;
  MonoTime last_ = kNever;  // When tokens_ was counted; kNever: not yet, it is full.
};

}  // namespace penstock
