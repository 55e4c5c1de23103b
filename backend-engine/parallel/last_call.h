// A call that may take long or never come back, such as one into a driver whose GPU
// hangs: made at most once, on a thread that has waited for it from the start. So
// whoever asks for it needs neither memory nor a thread by then, and does not wait.
//
// Threads: any, but for the destructor.
#pragma once

#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>

namespace penstock::engine {

class LastCall {
 public:
  // Throws std::system_error where there is no thread to be had.
  explicit LastCall(std::function<void()> call);
  // A call that was asked for is waited for, however long it takes; another is not made.
  ~LastCall();
  LastCall(const LastCall&) = delete;
  LastCall& operator=(const LastCall&) = delete;

  void Begin();  // Once or often.

  // Has it come back? Waits at most `seconds` for that.
  bool Done(double seconds) const;
  void Wait() const;  // Until it has. REQUIRES: Begin().

 private:
  void Run(const std::function<void()>& call);

  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
  bool asked_ = false, leaves_ = false, done_ = false;
  std::thread thread_;
};

}  // namespace penstock::engine
