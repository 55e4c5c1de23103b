#include "backend-engine/parallel/last_call.h"

#include <chrono>
#include <utility>

namespace penstock::engine {

LastCall::LastCall(std::function<void()> call)
    : thread_([this, call = std::move(call)] { Run(call); }) {}

LastCall::~LastCall() {
  {
    const std::lock_guard lock(mutex_);
    leaves_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void LastCall::Begin() {
  {
    const std::lock_guard lock(mutex_);
    asked_ = true;
  }
  changed_.notify_all();
}

bool LastCall::Done(double seconds) const {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, std::chrono::duration<double>(seconds), [this] { return done_; });
}

void LastCall::Wait() const {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return done_; });
}

void LastCall::Run(const std::function<void()>& call) {
  {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return asked_ || leaves_; });
    if (!asked_) return;
  }
  call();
  const std::lock_guard lock(mutex_);
  done_ = true;
  changed_.notify_all();
}

}  // namespace penstock::engine
