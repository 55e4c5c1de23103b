// Shows on standard error how far a model is loaded, until it is or the process ends.
#pragma once

#include <atomic>
#include <functional>
#include <string>

#include "backend-engine/api/progress_line.h"
#include "proxy/base/timer_queue.h"

namespace penstock::engine {

class LoadingShown {
 public:
  // Each share that is shown is told to `told`, too. REQUIRES: `timers` outlives it.
  LoadingShown(TimerQueue& timers, const std::string& model,
               std::function<void(double)> told = {});

  void Begin() { Show(); }
  void End();  // Once or often.

  void Set(double share) { share_.store(share); }  // 0 to 1; any thread.

 private:
  void Show();

  TimerQueue& timers_;
  ProgressLine line_;
  const std::function<void(double)> told_;
  std::atomic<double> share_{0};
  TimerQueue::Timer timer_;
};

}  // namespace penstock::engine
