// Callbacks by deadline, exact and in a fixed order, for what happens rarely:
// health checks, reconnects, reports. (Per-request deadlines use DeadlineWheel.)
// Does nothing until somebody calls AdvanceTo.
//
// Threads: one queue a loop, used on that loop's thread only. Time is told.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <utility>

#include "absl/functional/any_invocable.h"
#include "proxy/base/time.h"

namespace penstock {

class TimerQueue {
 public:
  using Callback = absl::AnyInvocable<void()>;

  // A timer that goes away never fires. Must not outlive the queue.
  class Timer {
   public:
    Timer() = default;
    Timer(Timer&& other) noexcept { *this = std::move(other); }
    Timer& operator=(Timer&& other) noexcept;
    ~Timer() { Cancel(); }
    void Cancel();
    bool armed() const;

   private:
    friend class TimerQueue;
    TimerQueue* queue_ = nullptr;
    std::pair<MonoTime, uint64_t> key_{};
  };

  explicit TimerQueue(MonoTime now) : now_(now) {}

  [[nodiscard]] Timer At(MonoTime when, Callback callback);
  [[nodiscard]] Timer After(MonoTime delay, Callback callback) {
    return At(now_ + delay, std::move(callback));
  }

  // Time has come this far; nothing fires before AdvanceTo.
  void Observe(MonoTime now) { now_ = now > now_ ? now : now_; }
  // Fires what is due, each at its own time: now() inside a callback is its deadline.
  void AdvanceTo(MonoTime now);
  std::optional<MonoTime> NextDeadline() const;
  MonoTime now() const { return now_; }
  size_t size() const { return timers_.size(); }  // That will fire.

 private:
  MonoTime now_;
  uint64_t next_id_ = 0;
  std::map<std::pair<MonoTime, uint64_t>, Callback> timers_;
};

}  // namespace penstock
