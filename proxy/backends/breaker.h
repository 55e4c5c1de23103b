// A circuit breaker: takes a backend out of use after too many faults, and lets
// a few requests try it again after a while.
//
//   closed --(consecutive faults, or share of faults in the window)--> open
//   open --(its time has passed)--> half_open --(enough successes)--> closed
//                                       '------(a fault)------> open, for longer
//
// The state is one atomic word that all workers share: state, override, how often
// it opened, probes and successes of this half-open period, and a time. A half-open
// period has a number, so that a probe that ends late, in a later period, counts
// for nothing. Chance (the jitter of the open time) is told by the caller.
//
// "Busy" answers and clients that leave are no faults; they only free a probe.
//
// Threads: any. Time is told; different threads' times may differ a little.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <optional>
#include <string_view>
#include <vector>

#include "config/config.h"
#include "proxy/base/time.h"

namespace penstock {

enum class BreakerState : uint8_t { kClosed, kOpen, kHalfOpen };
inline constexpr size_t kBreakerStates = 3;
enum class BreakerForce : uint8_t { kAuto, kOpen, kClosed };  // What an operator asked for.
enum class BreakerCause : uint8_t {
  kConsecutive,      // So many faults in a row.
  kRate,             // So large a share of faults in the window.
  kProbeFault,       // A probe failed.
  kOpenTimePassed,
  kProbesSucceeded,
  kAdmin,
};
std::string_view Name(BreakerState state);
std::string_view Name(BreakerForce force);
std::string_view Name(BreakerCause cause);

struct BreakerSettings {
  explicit BreakerSettings(const config::CircuitBreaker& settings);

  bool enabled;
  uint32_t consecutive;
  double rate;
  uint32_t minimum_requests;
  MonoTime window;
  MonoTime open_base;
  MonoTime open_max;
  uint32_t probes;      // At most kProbesMax.
  uint32_t successes;   // At most kSuccessesMax.
};

class Breaker {
 public:
  static constexpr uint32_t kProbesMax = 63;
  static constexpr uint32_t kSuccessesMax = 63;
  static constexpr size_t kTransitionsKept = 10;

  struct View {
    BreakerState state = BreakerState::kClosed;
    BreakerForce force = BreakerForce::kAuto;
    uint32_t opened = 0;      // Exponent of the next open time.
    uint32_t probes = 0;      // Under way, in half_open.
    uint32_t successes = 0;   // In this half-open period.
    MonoTime until = 0;       // kOpen: when it may be tried again, to the millisecond.

    // Whether a request may be sent: closed, or a probe is free.
    bool Admits(const BreakerSettings& settings, MonoTime now) const;
  };
  View view() const { return Unpack(word_.load(std::memory_order_relaxed)); }

  // The right to send one request.
  struct Pass {
    bool admitted = false;
    uint8_t probe = 0;        // Not 0: hand it back to Leave().
  };
  Pass Enter(const BreakerSettings& settings, MonoTime now);

  // How that request ended; each at most once for a Pass, and one of them for a probe.
  void Success(const BreakerSettings& settings, uint8_t probe, MonoTime now);
  void Neutral(uint8_t probe);
  // Returns a cause if the breaker ought to open; the caller then calls Open(),
  // or Spare() if too much of the pool is ejected already.
  std::optional<BreakerCause> Fault(const BreakerSettings& settings, uint8_t probe, MonoTime now,
                                    uint64_t random);

  // False: it was not closed any more, or an operator holds it.
  bool Open(const BreakerSettings& settings, BreakerCause cause, MonoTime now, uint64_t random);
  void Spare();
  // Moves an open breaker whose time has passed to half_open; Enter does so too.
  void Tick(MonoTime now);
  // An operator's word: holds until kAuto, which closes it with clean counts.
  void Force(BreakerForce force, MonoTime now);

  struct Transition {
    MonoTime at = 0;
    BreakerState from = BreakerState::kClosed;
    BreakerState to = BreakerState::kClosed;
    BreakerCause cause = BreakerCause::kAdmin;
  };
  std::vector<Transition> transitions() const;  // The last few, oldest first.
  uint64_t recorded() const { return recorded_.load(std::memory_order_relaxed); }  // Ever.
  uint64_t transition_count(BreakerState from, BreakerState to) const;
  uint64_t open_count(BreakerCause cause) const { return Load(opens_[Index(cause)]); }
  uint64_t spared_count() const { return Load(spared_); }  // Not opened because of the cap.

 private:
  static constexpr size_t kBuckets = 10;
  struct Word;

  template <typename T>
  static constexpr size_t Index(T value) { return static_cast<size_t>(value); }
  static uint64_t Load(const std::atomic<uint64_t>& counter) {
    return counter.load(std::memory_order_relaxed);
  }
  static View Unpack(uint64_t bits);

  bool Move(uint64_t& from, const Word& to, BreakerCause cause, MonoTime now);
  void CountInWindow(const BreakerSettings& settings, bool fault, MonoTime now);
  bool RateReached(const BreakerSettings& settings, MonoTime now) const;
  void ClearCounts();

  std::atomic<uint64_t> word_{0};
  std::atomic<uint32_t> consecutive_{0};
  std::array<std::atomic<uint64_t>, kBuckets> window_{};   // Slot number, requests, faults.
  std::array<std::atomic<uint64_t>, kBreakerStates * kBreakerStates> moves_{};
  std::array<std::atomic<uint64_t>, 6> opens_{};           // By cause.
  std::atomic<uint64_t> spared_{0};
  mutable std::mutex record_mutex_;                        // Taken at transitions only.
  std::array<Transition, kTransitionsKept> record_{};
  std::atomic<uint64_t> recorded_{0};
};

}  // namespace penstock
