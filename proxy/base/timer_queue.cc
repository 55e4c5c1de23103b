#include "proxy/base/timer_queue.h"

#include <algorithm>

namespace penstock {

TimerQueue::Timer& TimerQueue::Timer::operator=(Timer&& other) noexcept {
  if (this == &other) return *this;
  Cancel();
  queue_ = std::exchange(other.queue_, nullptr);
  key_ = other.key_;
  return *this;
}

void TimerQueue::Timer::Cancel() {
  if (queue_ == nullptr) return;
  // The callback may own what owns this timer: it is destroyed last.
  auto node = queue_->timers_.extract(key_);
  queue_ = nullptr;
}

bool TimerQueue::Timer::armed() const {
  return queue_ != nullptr && queue_->timers_.contains(key_);
}

TimerQueue::Timer TimerQueue::At(MonoTime when, Callback callback) {
  Timer timer;
  timer.queue_ = this;
  timer.key_ = {when, next_id_++};
  timers_.emplace(timer.key_, std::move(callback));
  return timer;
}

void TimerQueue::AdvanceTo(MonoTime now) {
  const MonoTime end = std::max(now_, now);
  while (!timers_.empty() && timers_.begin()->first.first <= end) {
    auto node = timers_.extract(timers_.begin());
    now_ = node.key().first;
    node.mapped()();
  }
  now_ = end;
}

std::optional<MonoTime> TimerQueue::NextDeadline() const {
  if (timers_.empty()) return std::nullopt;
  return timers_.begin()->first.first;
}

}  // namespace penstock
