// One backend's figures at one moment, as both /metrics and /backends show them.
#pragma once

#include <cstddef>
#include <string>

#include "proxy/admin/admin.h"
#include "proxy/backends/backend.h"

namespace penstock {

struct BackendView {
  const Backend& backend;
  const BackendState& state;
  LoadReport report;
  lb::Rung rung = lb::Rung::kOwn;  // What the report counts as now.
  uint64_t sent_since = 0;         // Since the report; 0 without one.
  double load = 0;                 // Requests that a choice counts there.
  double weight = 1;               // With slow start applied.
  Latency ttft;
  Breaker::View breaker;
};
BackendView LookAt(const PoolState& pool, size_t index, MonoTime now);

// The page /backends: every pool, every backend, JSON. `now` and `wall_now` are the
// same moment.
std::string BackendsJson(const Fleet& fleet, MonoTime now, absl::Time wall_now,
                         const std::function<std::string(lb::BackendId)>& last_score);

}  // namespace penstock
