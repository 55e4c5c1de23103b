// What happens beside the data path, on the control thread: health checks, load
// streams (pushed, or polled when the push fails), breaker timers, name
// resolution. It writes into Backend::state; workers only read it.
//
// Threads: the control loop's thread only.
#pragma once

#include <memory>

#include "proxy/backends/backend.h"
#include "proxy/net/loop.h"

namespace penstock {

class Control {
 public:
  static std::unique_ptr<Control> Create(Loop& loop, uint64_t seed);
  virtual ~Control() = default;
  // Starts watching what is new, stops what is gone, keeps the rest undisturbed.
  virtual void SetFleet(std::shared_ptr<const Fleet> fleet) = 0;
};

}  // namespace penstock
