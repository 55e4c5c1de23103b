// Looks at the GPUs once a second on a thread of its own, for the gauges of
// /metrics: never on the engine thread, and a driver that hangs holds nobody up.
// Whoever reads gets the last figures with their age; figures older than
// kFreshSeconds are no longer told, and the age alone shows that a look does not
// come back.
//
// Threads: Read() from any. The destructor waits for a look in progress for
// leave_seconds at most; one that hangs is left behind with its thread.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "backend-engine/exec/nvml.h"

namespace penstock::engine {

struct DeviceWatchOptions {
  std::vector<std::string> bus_ids;  // Of the GPUs, as CUDA gives them.
  std::string library = kNvmlLibrary;
  double period_seconds = 1;
  double leave_seconds = 2;
  std::function<void(const std::string&)> note;  // Called on the watch's thread, at most once a
                                                 // GPU: why there are no figures, one line.
  std::function<double()> now;  // Seconds; by itself the steady clock.
};

struct DeviceReading {
  bool possible = true;             // False: the library is missing or does not start.
  double age_seconds = 0;           // Of the figures, or of the wait for the first ones.
  std::vector<GpuFigures> figures;  // Of each GPU; empty: none that are fresh.
};

class DeviceWatch {
 public:
  explicit DeviceWatch(DeviceWatchOptions options);
  ~DeviceWatch();

  DeviceReading Read() const;

  static constexpr double kFreshSeconds = 5;

 private:
  struct Shared;
  static void Watch(const std::shared_ptr<Shared>& shared);

  const std::shared_ptr<Shared> shared_;  // With the thread, which may outlive this.
};

}  // namespace penstock::engine
