// What the watchers of a backend need of their loop, so that a test can hand in
// its own time, connections and chance.
#pragma once

#include <functional>
#include <string_view>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "proxy/base/deadline_wheel.h"
#include "proxy/base/random.h"
#include "proxy/base/timer_queue.h"
#include "proxy/net/address.h"
#include "proxy/net/dialer.h"

namespace penstock {

struct WatchSeams {
  using ResolveDone = absl::AnyInvocable<void(absl::StatusOr<std::vector<Address>>)>;

  TimerQueue& timers;
  DeadlineWheel& deadlines;
  Dialer& dialer;
  Random& random;
  std::function<void(std::string_view host, uint16_t port, ResolveDone done)> resolve;

  MonoTime now() const { return timers.now(); }
  // `time`, up to a tenth more or less, so that many watchers do not march in step.
  MonoTime Jittered(MonoTime time) const {
    return time - time / 10 + static_cast<MonoTime>(random.Unit() * static_cast<double>(time / 5));
  }
};

}  // namespace penstock
