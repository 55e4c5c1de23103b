// Looks at the memory of the process four times a second and tells the workers how
// much of it is left; what they do then is in request/overload.h.
//
// Threads: the control loop's thread; the level is read by the workers.
#pragma once

#include <cstdint>
#include <functional>

#include "config/config.h"
#include "proxy/admin/admin.h"
#include "proxy/net/loop.h"
#include "proxy/request/overload.h"
#include "proxy/request/worker_context.h"

namespace penstock {

class OverloadWatch {
 public:
  static constexpr MonoTime kTick = 250 * kMillisecond;
  // While memory is short it is given back to the system this often.
  static constexpr MonoTime kRelieveEvery = 10 * kSecond;

  struct Seams {
    std::function<uint64_t()> used;
    std::function<uint64_t()> limit;      // Of the system, for memory_limit: auto.
    std::function<void()> empty_caches;   // At kClose and above.
    std::function<void()> give_back;      // Freed memory to the system; at kShorten and above.
  };

  OverloadWatch(Loop& loop, ProcessTotals& totals, Seams seams);

  // The settings of the policy file in force; also looks at once.
  void SetSettings(const config::Overload& settings);
  OverloadStatus status() const { return status_; }

 private:
  void Look();
  void Schedule();

  Loop& loop_;
  ProcessTotals& totals_;
  const Seams seams_;
  config::Overload settings_;
  MemoryGuard guard_;
  OverloadStatus status_;
  MonoTime relieve_after_ = 0;
  TimerQueue::Timer timer_;
};

}  // namespace penstock
