#include "proxy/request/overload.h"

namespace penstock {

std::string_view Name(Pressure level) {
  switch (level) {
    case Pressure::kNone: return "none";
    case Pressure::kShorten: return "shorten_idle";
    case Pressure::kClose: return "close_after_answer";
    case Pressure::kReject: return "reject_requests";
    case Pressure::kStop: return "stop_accepting";
  }
  return "";
}

void MemoryGuard::SetThresholds(const config::Overload& settings) {
  from_ = {0, settings.shorten_idle, settings.close_after_answer, settings.reject_requests,
           settings.stop_accepting};
}

Pressure MemoryGuard::Sample(double share) {
  share_ = share;
  auto level = static_cast<size_t>(level_);
  while (level + 1 < kPressures && share >= from_[level + 1]) ++level;
  while (level > 0 && share < from_[level] - kStepBack) --level;
  level_ = static_cast<Pressure>(level);
  return level_;
}

double MemoryGuard::idle_share() const {
  if (level_ == Pressure::kNone) return 1;
  if (level_ >= Pressure::kClose) return 0;
  const double from = from_[1], to = from_[2];
  return to <= from ? 0 : std::clamp((to - share_) / (to - from), 0.0, 1.0);
}

MonoTime StandingDelay::median() const {
  std::array<MonoTime, kSamples> sorted = samples_;
  std::nth_element(sorted.begin(), sorted.begin() + kSamples / 2, sorted.end());
  return sorted[kSamples / 2];
}

double ShedChance(MonoTime delay, MonoTime from, MonoTime full) {
  if (from == 0 || delay <= from) return 0;
  if (delay >= full) return 1;
  return static_cast<double>(delay - from) / static_cast<double>(full - from);
}

void Pace::Take(MonoTime now) {
  if (per_second_ == 0) return;
  if (last_ == kNever) {
    tokens_ = burst();
  } else {
    const double passed = static_cast<double>(std::max<MonoTime>(now - last_, 0)) / kSecond;
    tokens_ = std::min(burst(), tokens_ + passed * per_second_);
  }
  last_ = now;
  tokens_ = std::max(0.0, tokens_ - 1);
}

MonoTime Pace::NextAt(MonoTime now) const {
  if (per_second_ == 0 || last_ == kNever || tokens_ >= 1) return now;
  return last_ + static_cast<MonoTime>((1 - tokens_) / per_second_ * kSecond) + 1;
}

}  // namespace penstock
