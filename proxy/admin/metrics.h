// Everything on /metrics: the table of what there is, and the text of a moment.
//
// The counts live where they are made (worker cells, backend state, caches); a
// scrape reads them all once. Adding a metric: one line in metrics_table.cc, one
// Add in metrics.cc or backend_metrics.cc, one row in docs/metrics.md.
//
// Threads: any, as everything that is read is atomic or locked by its owner.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/time/time.h"
#include "proxy/admin/admin.h"
#include "proxy/backends/backend.h"
#include "proxy/backends/worker_metrics.h"

namespace penstock {

enum class MetricKind : uint8_t { kCounter, kGauge, kHistogram };
std::string_view Name(MetricKind kind);

struct MetricInfo {
  std::string_view name;
  MetricKind kind;
  std::string_view labels;  // As docs/metrics.md has them: "pool, code, stream".
  std::string_view help;
};
std::span<const MetricInfo> AllMetrics();

// What one scrape reads.
struct Scrape {
  MonoTime now = 0;
  std::shared_ptr<const Fleet> fleet;                 // May be null.
  std::vector<const WorkerMetrics*> workers;
  std::vector<std::shared_ptr<ResultCache>> caches;
  PolicyStatus policy;
  TlsStatus tls;
  OverloadStatus overload;
  bool ready = true;
  std::string version;
  std::string revision;
};

// Prometheus text format 0.0.4.
std::string RenderMetrics(const Scrape& scrape);

}  // namespace penstock
