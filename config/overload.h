// A part of config.h: server.overload.
#pragma once

#include <cstdint>

#include "absl/time/time.h"

namespace penstock::config {

// What the proxy gives up, step by step, when it has too much to do itself. Shares
// are of the memory that it may use.
struct Overload {
  uint64_t memory_limit = 0;                 // 0 (auto): of the cgroup, else of the machine.
  double shorten_idle = 0.85;                // Idle connections are kept for a shorter time.
  double close_after_answer = 0.92;          // Connections close after their answer; caches go.
  double reject_requests = 0.95;             // New requests get 503.
  double stop_accepting = 0.98;              // Connections wait in the kernel.
  absl::Duration loop_delay_from = absl::Milliseconds(250);  // Turns so late on the median: the first 503 ...
  absl::Duration loop_delay_full = absl::Seconds(1);         // ... and so late: all. 0s from: never.
};

}  // namespace penstock::config
