// Looks once a second at whether what runs comes to its end: the step under way, the
// ranks' start together, and, once somebody waits for it, all that is left. On a thread
// of its own, which goes on when all others hang.
//
// Threads: any. No call waits for long but the destructor, for a call of `lasts`.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <string>
#include <thread>

namespace penstock::engine {

struct StepWatchOptions {
  int32_t step_seconds_max = 120;
  int32_t end_seconds_max = 30;
  double second = 1;  // Shorter in tests.
  // Something has run for more than step_seconds_max; once. Returns soon.
  std::function<void(const std::string&)> hangs;
  // Does somebody wait for all to end? `leaves`: after Leave().
  std::function<bool(bool leaves)> must_end;
  std::function<void()> lasts;  // That has been so for end_seconds_max; once.
};

class StepWatch {
 public:
  explicit StepWatch(StepWatchOptions options);
  ~StepWatch();
  StepWatch(const StepWatch&) = delete;
  StepWatch& operator=(const StepWatch&) = delete;

  // What is looked at from now on.
  void OfStart() { running_.store(kStart, std::memory_order_release); }
  void OfStep(uint64_t number) { running_.store(number + 1, std::memory_order_release); }
  void OfNothing() { running_.store(0, std::memory_order_release); }

  void Leave();  // `hangs` is not called after it has returned.

 private:
  static constexpr uint64_t kStart = ~uint64_t{0};
  void Watch();

  const StepWatchOptions options_;
  std::atomic<uint64_t> running_{0};  // A step's number + 1, kStart, or 0.
  std::mutex mutex_;                  // Held while something is called.
  std::condition_variable wake_;
  bool leaves_ = false, ends_ = false;
  std::thread thread_;
};

}  // namespace penstock::engine
