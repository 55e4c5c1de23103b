#include "backend-engine/exec/step_watch.h"

#include <chrono>
#include <utility>

namespace penstock::engine {

StepWatch::StepWatch(StepWatchOptions options)
    : options_(std::move(options)), thread_([this] { Watch(); }) {}

StepWatch::~StepWatch() {
  {
    const std::lock_guard lock(mutex_);
    ends_ = true;
  }
  wake_.notify_one();
  thread_.join();
}

void StepWatch::Leave() {
  const std::lock_guard lock(mutex_);
  leaves_ = true;
}

void StepWatch::Watch() {
  uint64_t watched = 0;
  int32_t seconds = 0, ending = 0;
  bool hung = false;
  const std::chrono::duration<double> second(options_.second);
  std::unique_lock lock(mutex_);
  while (!wake_.wait_for(lock, second, [this] { return ends_; })) {
    const bool must_end = options_.must_end(leaves_);
    if (must_end && ++ending == options_.end_seconds_max) options_.lasts();
    if (must_end || leaves_) continue;
    const uint64_t now = running_.load(std::memory_order_acquire);
    seconds = now != 0 && now == watched ? seconds + 1 : 0;
    watched = now;
    if (seconds < options_.step_seconds_max || std::exchange(hung, true)) continue;
    options_.hangs((now == kStart ? "the ranks' first work together"
                                  : "step " + std::to_string(now - 1)) +
                   " has run for more than " + std::to_string(options_.step_seconds_max) + " s");
  }
}

}  // namespace penstock::engine
