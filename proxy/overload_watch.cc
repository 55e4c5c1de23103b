#include "proxy/overload_watch.h"

#include <utility>

#include "proxy/base/log.h"

namespace penstock {

OverloadWatch::OverloadWatch(Loop& loop, ProcessTotals& totals, Seams seams)
    : loop_(loop), totals_(totals), seams_(std::move(seams)), guard_(settings_) {}

void OverloadWatch::SetSettings(const config::Overload& settings) {
  settings_ = settings;
  guard_.SetThresholds(settings);
  status_.memory_limit = settings.memory_limit > 0 ? settings.memory_limit : seams_.limit();
  Look();
  Schedule();
}

void OverloadWatch::Schedule() {
  timer_ = loop_.timers().After(kTick, [this] {
    Look();
    Schedule();
  });
}

void OverloadWatch::Look() {
  status_.memory_used = seams_.used();
  if (status_.memory_limit == 0) return;  // Nobody says what there may be.
  const double share =
      static_cast<double>(status_.memory_used) / static_cast<double>(status_.memory_limit);
  const Pressure before = guard_.level();
  const Pressure level = guard_.Sample(share);
  totals_.pressure.store(level, std::memory_order_relaxed);
  totals_.idle_share.store(static_cast<float>(guard_.idle_share()), std::memory_order_relaxed);
  status_.level = static_cast<unsigned>(level);
  if (level != before) {
    ++status_.changes;
    const auto line = fmt::format("memory: {:.0f} % of {} MiB in use: {} (was {})", share * 100,
                                  status_.memory_limit >> 20, Name(level), Name(before));
    LogLine(level > before ? LogLevel::kWarn : LogLevel::kInfo, line);
    if (level >= Pressure::kClose && before < Pressure::kClose) seams_.empty_caches();
  }
  if (level >= Pressure::kShorten && loop_.now() >= relieve_after_) {
    relieve_after_ = loop_.now() + kRelieveEvery;
    // What has filled up meanwhile goes again.
    if (level >= Pressure::kClose) seams_.empty_caches();
    seams_.give_back();
  }
}

}  // namespace penstock
