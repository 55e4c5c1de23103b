// Where a backend is: fixed for an IP address, looked up every 30 s for a name.
//
// A name's current address is kept while the look-up still lists it, and while
// the look-up fails: engines outlive name servers. A backend whose name has never
// been resolved is down.
//
// Threads: the control loop's thread.
#pragma once

#include <memory>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "proxy/backends/backend.h"
#include "proxy/backends/watch_seams.h"

namespace penstock {

class Resolver {
 public:
  static constexpr MonoTime kRefresh = 30 * kSecond;
  static constexpr MonoTime kRetry = 2 * kSecond;   // While there is no address at all.

  // `on_address`: the backend's address is known now, or is another one.
  Resolver(const WatchSeams& seams, Backend& backend, absl::AnyInvocable<void()> on_address);
  ~Resolver();

  // May call back at once.
  void Start();

 private:
  void LookUp();
  void OnResult(absl::StatusOr<std::vector<Address>> result);

  const WatchSeams seams_;
  Backend& backend_;
  absl::AnyInvocable<void()> on_address_;
  bool complained_ = false;
  TimerQueue::Timer timer_;
  // A look-up cannot be cancelled: its answer finds out here whether we are alive.
  const std::shared_ptr<Resolver*> self_;
};

}  // namespace penstock
