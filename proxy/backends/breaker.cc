#include "proxy/backends/breaker.h"

#include <algorithm>

namespace penstock {
namespace {

constexpr uint32_t kExponentMax = 15;
constexpr uint32_t kPeriods = 16;
constexpr uint64_t kTimeMask = (uint64_t{1} << 40) - 1;
constexpr auto kRelaxed = std::memory_order_relaxed;

// One slot of the window: its number, requests and faults in one word.
struct Slot {
  uint32_t number = 0;
  uint16_t requests = 0;
  uint16_t faults = 0;

  static Slot Of(uint64_t bits) {
    return {static_cast<uint32_t>(bits >> 32), static_cast<uint16_t>(bits >> 16),
            static_cast<uint16_t>(bits)};
  }
  uint64_t bits() const {
    return uint64_t{number} << 32 | uint64_t{requests} << 16 | uint64_t{faults};
  }
};

// Slot numbers start at 1, so that a slot never used is never a recent one.
uint32_t SlotNumber(MonoTime now, MonoTime width) {
  return static_cast<uint32_t>(now / width) + 1;
}

// base * 2^exponent up to the maximum, and then up to 20 % more or less.
MonoTime OpenTime(const BreakerSettings& settings, uint32_t exponent, uint64_t random) {
  MonoTime time = settings.open_base;
  for (uint32_t i = 0; i < exponent && time < settings.open_max; ++i) time *= 2;
  time = std::min(time, settings.open_max);
  return time * 4 / 5 + static_cast<MonoTime>(random % 4096) * (time * 2 / 5) / 4095;
}

uint8_t ProbeOf(uint32_t period) { return static_cast<uint8_t>(period + 1); }

}  // namespace

// state 2 | force 2 | opened 4 | probes 6 | successes 6 | period 4 | time 40.
// The time is in milliseconds: open, until when; closed, since when.
struct Breaker::Word {
  BreakerState state = BreakerState::kClosed;
  BreakerForce force = BreakerForce::kAuto;
  uint32_t opened = 0;
  uint32_t probes = 0;
  uint32_t successes = 0;
  uint32_t period = 0;
  MonoTime time = 0;

  static Word Of(uint64_t bits) {
    Word word;
    word.state = static_cast<BreakerState>(bits & 3);
    word.force = static_cast<BreakerForce>(bits >> 2 & 3);
    word.opened = bits >> 4 & 15;
    word.probes = bits >> 8 & 63;
    word.successes = bits >> 14 & 63;
    word.period = bits >> 20 & 15;
    word.time = static_cast<MonoTime>(bits >> 24) * kMillisecond;
    return word;
  }
  uint64_t bits() const {
    return static_cast<uint64_t>(state) | static_cast<uint64_t>(force) << 2 | uint64_t{opened} << 4 |
           uint64_t{probes} << 8 | uint64_t{successes} << 14 | uint64_t{period} << 20 |
           (static_cast<uint64_t>(time / kMillisecond) & kTimeMask) << 24;
  }

  void Closes(MonoTime now) {
    state = BreakerState::kClosed;
    probes = successes = 0;
    time = now;
  }
  void Opens(const BreakerSettings& settings, MonoTime now, uint64_t random) {
    state = BreakerState::kOpen;
    probes = successes = 0;
    time = now + OpenTime(settings, opened, random);
    opened = std::min(opened + 1, kExponentMax);
  }
  void HalfOpens() {
    state = BreakerState::kHalfOpen;
    probes = successes = 0;
    period = (period + 1) % kPeriods;
  }
};

std::string_view Name(BreakerState state) {
  switch (state) {
    case BreakerState::kClosed: return "closed";
    case BreakerState::kOpen: return "open";
    case BreakerState::kHalfOpen: return "half_open";
  }
  return "";
}

std::string_view Name(BreakerForce force) {
  switch (force) {
    case BreakerForce::kAuto: return "auto";
    case BreakerForce::kOpen: return "open";
    case BreakerForce::kClosed: return "close";
  }
  return "";
}

std::string_view Name(BreakerCause cause) {
  switch (cause) {
    case BreakerCause::kConsecutive: return "consecutive_faults";
    case BreakerCause::kRate: return "fault_rate";
    case BreakerCause::kProbeFault: return "probe_failed";
    case BreakerCause::kOpenTimePassed: return "open_time_passed";
    case BreakerCause::kProbesSucceeded: return "probes_succeeded";
    case BreakerCause::kAdmin: return "admin";
  }
  return "";
}

BreakerSettings::BreakerSettings(const config::CircuitBreaker& settings)
    : enabled(settings.enabled), consecutive(std::max(1u, settings.consecutive_failures)),
      rate(settings.failure_rate_threshold),
      minimum_requests(std::max(1u, settings.minimum_requests)),
      window(std::max(ToMicros(settings.window), MonoTime{10'000})),
      open_base(std::max(ToMicros(settings.open_base), kMillisecond)),
      open_max(std::max(ToMicros(settings.open_max), open_base)),
      probes(std::clamp(settings.half_open_requests, 1u, Breaker::kProbesMax)),
      successes(std::clamp(settings.half_open_successes, 1u, Breaker::kSuccessesMax)) {}

Breaker::View Breaker::Unpack(uint64_t bits) {
  const Word word = Word::Of(bits);
  return {word.state, word.force, word.opened, word.probes, word.successes,
          word.state == BreakerState::kOpen ? word.time : 0};
}

bool Breaker::View::Admits(const BreakerSettings& settings, MonoTime now) const {
  if (force != BreakerForce::kAuto) return force == BreakerForce::kClosed;
  if (!settings.enabled) return true;
  if (state == BreakerState::kClosed) return true;
  if (state == BreakerState::kOpen) return now >= until;
  return probes < settings.probes;
}

// Every change of state goes through here: one compare-exchange, then the record.
bool Breaker::Move(uint64_t& from, const Word& to, BreakerCause cause, MonoTime now) {
  if (!word_.compare_exchange_strong(from, to.bits(), kRelaxed)) return false;
  const BreakerState before = Word::Of(from).state;
  if (before == to.state) return true;
  moves_[Index(before) * kBreakerStates + Index(to.state)].fetch_add(1, kRelaxed);
  if (to.state == BreakerState::kOpen) opens_[Index(cause)].fetch_add(1, kRelaxed);
  if (to.state != BreakerState::kHalfOpen) ClearCounts();
  const std::lock_guard lock(record_mutex_);
  const uint64_t index = recorded_.load(kRelaxed);
  record_[index % kTransitionsKept] = {now, before, to.state, cause};
  recorded_.store(index + 1, kRelaxed);
  return true;
}

Breaker::Pass Breaker::Enter(const BreakerSettings& settings, MonoTime now) {
  uint64_t bits = word_.load(kRelaxed);
  for (;;) {
    if (!Unpack(bits).Admits(settings, now)) return {};
    Word word = Word::Of(bits);
    if (word.force != BreakerForce::kAuto || !settings.enabled) return {true, 0};
    if (word.state == BreakerState::kClosed) return {true, 0};
    if (word.state == BreakerState::kOpen) {
      word.HalfOpens();
      if (!Move(bits, word, BreakerCause::kOpenTimePassed, now)) continue;
      bits = word.bits();
    }
    ++word.probes;
    if (word_.compare_exchange_strong(bits, word.bits(), kRelaxed)) {
      return {true, ProbeOf(word.period)};
    }
  }
}

void Breaker::Success(const BreakerSettings& settings, uint8_t probe, MonoTime now) {
  if (probe == 0) {
    if (consecutive_.load(kRelaxed) != 0) consecutive_.store(0, kRelaxed);
    if (settings.enabled) CountInWindow(settings, false, now);
    return;
  }
  uint64_t bits = word_.load(kRelaxed);
  for (;;) {
    Word word = Word::Of(bits);
    if (word.state != BreakerState::kHalfOpen || ProbeOf(word.period) != probe) return;
    if (word.probes > 0) --word.probes;
    if (++word.successes >= settings.successes) {
      word.Closes(now);
      if (Move(bits, word, BreakerCause::kProbesSucceeded, now)) return;
    } else if (word_.compare_exchange_strong(bits, word.bits(), kRelaxed)) {
      return;
    }
  }
}

void Breaker::Neutral(uint8_t probe) {
  if (probe == 0) return;
  uint64_t bits = word_.load(kRelaxed);
  for (;;) {
    Word word = Word::Of(bits);
    if (word.state != BreakerState::kHalfOpen || ProbeOf(word.period) != probe) return;
    if (word.probes == 0) return;
    --word.probes;
    if (word_.compare_exchange_strong(bits, word.bits(), kRelaxed)) return;
  }
}

std::optional<BreakerCause> Breaker::Fault(const BreakerSettings& settings, uint8_t probe,
                                           MonoTime now, uint64_t random) {
  if (!settings.enabled) return std::nullopt;
  uint64_t bits = word_.load(kRelaxed);
  if (probe != 0) {
    for (;;) {
      Word word = Word::Of(bits);
      if (word.state != BreakerState::kHalfOpen || ProbeOf(word.period) != probe) {
        return std::nullopt;
      }
      word.Opens(settings, now, random);
      if (Move(bits, word, BreakerCause::kProbeFault, now)) return std::nullopt;
    }
  }
  const Word word = Word::Of(bits);
  if (word.state != BreakerState::kClosed || word.force != BreakerForce::kAuto) return std::nullopt;
  CountInWindow(settings, true, now);
  if (consecutive_.fetch_add(1, kRelaxed) + 1 >= settings.consecutive) {
    return BreakerCause::kConsecutive;
  }
  if (RateReached(settings, now)) return BreakerCause::kRate;
  return std::nullopt;
}

bool Breaker::Open(const BreakerSettings& settings, BreakerCause cause, MonoTime now,
                   uint64_t random) {
  uint64_t bits = word_.load(kRelaxed);
  for (;;) {
    Word word = Word::Of(bits);
    if (word.state != BreakerState::kClosed || word.force != BreakerForce::kAuto) return false;
    // One that closed only just now was let back too early: it waits longer than before.
    if (now - word.time >= settings.open_max) word.opened = 0;
    word.Opens(settings, now, random);
    if (Move(bits, word, cause, now)) return true;
  }
}

void Breaker::Spare() {
  ClearCounts();
  spared_.fetch_add(1, kRelaxed);
}

void Breaker::Tick(MonoTime now) {
  uint64_t bits = word_.load(kRelaxed);
  for (;;) {
    Word word = Word::Of(bits);
    if (word.state != BreakerState::kOpen || word.force != BreakerForce::kAuto) return;
    if (now < word.time) return;
    word.HalfOpens();
    if (Move(bits, word, BreakerCause::kOpenTimePassed, now)) return;
  }
}

void Breaker::Force(BreakerForce force, MonoTime now) {
  uint64_t bits = word_.load(kRelaxed);
  for (;;) {
    Word word = Word::Of(bits);
    word.Closes(now);
    word.opened = 0;
    if (force == BreakerForce::kOpen) word.state = BreakerState::kOpen;
    word.force = force;
    if (Move(bits, word, BreakerCause::kAdmin, now)) return;
  }
}

void Breaker::CountInWindow(const BreakerSettings& settings, bool fault, MonoTime now) {
  const uint32_t number = SlotNumber(now, settings.window / static_cast<MonoTime>(kBuckets));
  std::atomic<uint64_t>& bucket = window_[number % kBuckets];
  uint64_t bits = bucket.load(kRelaxed);
  for (;;) {
    Slot slot = Slot::Of(bits);
    if (slot.number != number) slot = {number, 0, 0};
    if (slot.requests == UINT16_MAX) return;
    ++slot.requests;
    if (fault) ++slot.faults;
    if (bucket.compare_exchange_weak(bits, slot.bits(), kRelaxed)) return;
  }
}

bool Breaker::RateReached(const BreakerSettings& settings, MonoTime now) const {
  const uint32_t number = SlotNumber(now, settings.window / static_cast<MonoTime>(kBuckets));
  uint64_t requests = 0;
  uint64_t faults = 0;
  for (const auto& bucket : window_) {
    const Slot slot = Slot::Of(bucket.load(kRelaxed));
    if (number - slot.number >= kBuckets) continue;
    requests += slot.requests;
    faults += slot.faults;
  }
  return requests >= settings.minimum_requests &&
         static_cast<double>(faults) >= settings.rate * static_cast<double>(requests);
}

void Breaker::ClearCounts() {
  consecutive_.store(0, kRelaxed);
  for (auto& bucket : window_) bucket.store(0, kRelaxed);
}

std::vector<Breaker::Transition> Breaker::transitions() const {
  const std::lock_guard lock(record_mutex_);
  std::vector<Transition> transitions;
  const uint64_t end = recorded_.load(kRelaxed);
  const uint64_t first = end > kTransitionsKept ? end - kTransitionsKept : 0;
  for (uint64_t i = first; i < end; ++i) transitions.push_back(record_[i % kTransitionsKept]);
  return transitions;
}

uint64_t Breaker::transition_count(BreakerState from, BreakerState to) const {
  return Load(moves_[Index(from) * kBreakerStates + Index(to)]);
}

}  // namespace penstock
