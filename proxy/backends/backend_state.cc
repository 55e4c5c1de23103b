#include "proxy/backends/backend_state.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <thread>

namespace penstock {
namespace {

constexpr auto kRelaxed = std::memory_order_relaxed;
constexpr int kReadTries = 64;
constexpr float kSlowStartLeast = 0.1f;
constexpr uint64_t kTimeMask = (uint64_t{1} << 48) - 1;

uint64_t PackSent(uint64_t index, MonoTime now) {
  const uint64_t lap = (index / BackendState::kSentKept + 1) & 0xffff;
  return lap << 48 | (static_cast<uint64_t>(now) & kTimeMask);
}

uint64_t PackTtft(float seconds, MonoTime now) {
  const auto at_ms = static_cast<uint32_t>(now / kMillisecond);
  return uint64_t{std::bit_cast<uint32_t>(seconds)} << 32 | at_ms;
}

Latency UnpackTtft(uint64_t bits, MonoTime now) {
  if (bits == 0) return {};
  // Differences of wrapped milliseconds: right for up to 24 days of silence, and a
  // thread whose time is a little behind sees no idle time rather than 49 days.
  const auto idle_ms = static_cast<int32_t>(static_cast<uint32_t>(now / kMillisecond) -
                                            static_cast<uint32_t>(bits));
  return {std::bit_cast<float>(static_cast<uint32_t>(bits >> 32)),
          std::max(idle_ms, 0) * kMillisecond};
}

float Decay(MonoTime elapsed, MonoTime tau) {
  return std::exp(-static_cast<float>(elapsed) / static_cast<float>(std::max(tau, MonoTime{1})));
}

}  // namespace

std::string_view Name(Health health) {
  switch (health) {
    case Health::kUnknown: return "unknown";
    case Health::kHealthy: return "healthy";
    case Health::kUnhealthy: return "unhealthy";
    case Health::kDown: return "down";
  }
  return "";
}

float Latency::Towards(float median, MonoTime tau) const {
  if (seconds < 0) return seconds;
  return median + (seconds - median) * Decay(idle, tau);
}

void BackendState::Sent(MonoTime now) {
  in_flight_.fetch_add(1, kRelaxed);
  const uint64_t index = sent_.fetch_add(1, kRelaxed);
  sent_times_[index % kSentKept].store(PackSent(index, now), kRelaxed);
}

void BackendState::AddWorker(uint32_t worker) {
  uint32_t count = worker_count_.load(kRelaxed);
  while (count <= worker && !worker_count_.compare_exchange_weak(count, worker + 1, kRelaxed)) {
  }
}

MonoTime BackendState::oldest_wait() const {
  MonoTime oldest = kNever;
  const uint32_t workers = worker_count_.load(kRelaxed);
  for (uint32_t i = 0; i < workers; ++i) {
    oldest = std::min(oldest, workers_[i].oldest_wait.load(kRelaxed));
  }
  return oldest;
}

// How many were sent up to `made`. An entry whose lap is not the expected one is
// being written at this moment: it was sent after `made`.
uint64_t BackendState::MarkAt(MonoTime made) const {
  const uint64_t total = sent_.load(kRelaxed);
  const uint64_t first = total > kSentKept ? total - kSentKept : 0;
  uint64_t after = 0;
  for (uint64_t index = first; index < total; ++index) {
    const uint64_t bits = sent_times_[index % kSentKept].load(kRelaxed);
    const bool written = bits >> 48 == PackSent(index, 0) >> 48;
    if (!written || static_cast<MonoTime>(bits & kTimeMask) > made) ++after;
  }
  return total - after;
}

void BackendState::ObserveTtft(MonoTime elapsed, MonoTime now, MonoTime tau) {
  const float seen = static_cast<float>(std::max(elapsed, MonoTime{1})) / kSecond;
  uint64_t bits = ttft_.load(kRelaxed);
  for (;;) {
    const Latency last = UnpackTtft(bits, now);
    float next = seen;
    if (last.seconds > seen) {
      const float keep = Decay(last.idle, tau);
      next = last.seconds * keep + seen * (1 - keep);
    }
    if (ttft_.compare_exchange_weak(bits, PackTtft(next, now), kRelaxed)) return;
  }
}

Latency BackendState::ttft(MonoTime now) const { return UnpackTtft(ttft_.load(kRelaxed), now); }

bool BackendState::LockReport(bool wait) {
  for (;;) {
    uint64_t version = report_version_.load(kRelaxed);
    if (version % 2 == 0 && report_version_.compare_exchange_strong(version, version + 1,
                                                                    std::memory_order_acq_rel)) {
      return true;
    }
    if (!wait) return false;
    std::this_thread::yield();
  }
}

void BackendState::UnlockReport() { report_version_.fetch_add(1, std::memory_order_release); }

// Plain loads and stores with release and acquire on every word in place of
// fences: the same instructions on x86, and the thread sanitizer follows them.
LoadReport BackendState::LoadWords() const {
  std::array<uint64_t, kReportWords> words;
  for (size_t i = 0; i < kReportWords; ++i) {
    words[i] = report_words_[i].load(std::memory_order_acquire);
  }
  return std::bit_cast<LoadReport>(words);
}

void BackendState::StoreWords(const LoadReport& report) {
  const auto words = std::bit_cast<std::array<uint64_t, kReportWords>>(report);
  for (size_t i = 0; i < kReportWords; ++i) {
    report_words_[i].store(words[i], std::memory_order_release);
  }
}

bool BackendState::Supersedes(const LoadReport& report, MonoTime fresh_for, Publish& why_not) {
  const LoadReport last = LoadWords();
  if (last.rung == lb::Rung{}) return true;  // All zero: there was none.
  why_not = Publish::kOld;
  bool newer = report.made >= last.made;
  if (report.epoch != 0 && report.epoch == last.epoch) {
    if (report.seq < last.seq) return false;
    newer = newer || report.seq > last.seq;  // The engine's order, whatever the network did.
  } else if (report.epoch != 0 && report.epoch == previous_epoch_) {
    return false;
  }
  const bool restarted = report.epoch != 0 && last.epoch != 0 && report.epoch != last.epoch;
  if (!newer && !restarted) return false;
  why_not = Publish::kOutranked;
  if (report.rung > last.rung && report.arrived - last.arrived < fresh_for) return false;
  if (restarted) previous_epoch_ = last.epoch;
  return true;
}

BackendState::Publish BackendState::PublishReport(const LoadReport& report, MonoTime fresh_for,
                                                  bool wait) {
  if (!LockReport(wait)) return Publish::kBusy;
  Publish result = Publish::kTaken;
  if (Supersedes(report, fresh_for, result)) {
    result = Publish::kTaken;
    LoadReport marked = report;
    marked.sent_mark = MarkAt(report.made);
    StoreWords(marked);
  }
  UnlockReport();
  if (result == Publish::kTaken) {
    reports_taken[static_cast<size_t>(report.rung) - 1].fetch_add(1, kRelaxed);
    EndRestIfRoom(report);
  } else if (result == Publish::kOld) {
    reports_old.fetch_add(1, kRelaxed);
  }
  return result;
}

bool BackendState::ReadReport(LoadReport& report) const {
  for (int i = 0; i < kReadTries; ++i) {
    const uint64_t before = report_version_.load(std::memory_order_acquire);
    if (before % 2 != 0) continue;
    const LoadReport read = LoadWords();
    if (report_version_.load(kRelaxed) != before) continue;
    report = read.rung == lb::Rung{} ? LoadReport{} : read;
    return true;
  }
  return false;
}

void BackendState::ForgetReport() {
  LockReport(true);
  for (auto& word : report_words_) word.store(0, std::memory_order_release);
  previous_epoch_ = 0;
  UnlockReport();
}

void BackendState::SetHealth(Health health, MonoTime now) {
  if (health == this->health() && health != Health::kUnknown) return;
  const Health before = this->health();
  health_.store(now << 2 | static_cast<int64_t>(health), kRelaxed);
  const bool recovered = before == Health::kUnhealthy || before == Health::kDown;
  if (health == Health::kHealthy && recovered) ramp_from.store(now, kRelaxed);
}

void BackendState::Rest(MonoTime now, MonoTime retry_after) {
  busy_answers.fetch_add(1, kRelaxed);
  const MonoTime rest = retry_after > 0 ? std::min(retry_after, kRestMax) : kRestDefault;
  rest_from_.store(now, kRelaxed);
  rest_until_.store(now + rest, kRelaxed);
}

void BackendState::EndRestIfRoom(const LoadReport& report) {
  const MonoTime until = rest_until_.load(kRelaxed);
  if (until <= report.arrived || !report.has_room()) return;
  if (report.made > rest_from_.load(kRelaxed)) rest_until_.store(0, kRelaxed);
}

lb::Rung RungAt(const LoadReport& report, MonoTime now, MonoTime stale, MonoTime poll) {
  if (!report.known() || !report.has_total()) return lb::Rung::kOwn;
  const MonoTime fresh_for = report.rung == lb::Rung::kPoll ? poll * 5 / 2 : stale;
  return now - report.arrived <= fresh_for ? report.rung : lb::Rung::kOwn;
}

float TotalAt(const LoadReport& report, float in_flight, float sent_since) {
  const float said = std::max(report.waiting, 0.0f) + std::max(report.running, 0.0f);
  return std::max(said, in_flight - sent_since);
}

float SlowStartAt(MonoTime ramp_from, MonoTime now, MonoTime window) {
  if (window <= 0 || ramp_from == kNever || now >= ramp_from + window) return 1;
  const MonoTime passed = std::max(now - ramp_from, MonoTime{0});
  return std::max(kSlowStartLeast, static_cast<float>(passed) / static_cast<float>(window));
}

}  // namespace penstock
