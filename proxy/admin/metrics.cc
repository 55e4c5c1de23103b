#include "proxy/admin/metrics.h"

#include <prometheus/text_serializer.h>

#include <algorithm>
#include <array>
#include <map>
#include <sstream>

#include <fmt/format.h>

#include "proxy/admin/families.h"
#include "proxy/base/log.h"

namespace penstock {
namespace {

// Codes that every pool shows from the start, so that a rate over them is right
// from the first one on. Others appear when they happen.
constexpr std::array<uint16_t, 11> kZeroCodes = {200, 400, 404, 408, 413, 429,
                                                 499, 500, 502, 503, 504};

// Sums the same histogram of all workers.
template <typename Cells>
struct HistogramSum {
  std::array<double, Cells::kBuckets> buckets{};
  double sum = 0;

  void Add(const Cells& cells) {
    for (size_t i = 0; i < buckets.size(); ++i) buckets[i] += static_cast<double>(cells.bucket(i));
    sum += static_cast<double>(cells.sum()) / kSecond;
  }
  void AddTo(Families& families, std::string_view name, Families::Labels labels) const {
    std::array<double, Cells::kBuckets - 1> bounds;
    for (size_t i = 0; i < bounds.size(); ++i) {
      bounds[i] = static_cast<double>(Cells::bounds()[i]) / kSecond;
    }
    families.AddHistogram(name, labels, bounds, buckets, sum);
  }
};

using PoolParts = std::vector<const PoolCells*>;  // One pool's cells, a worker each.

template <typename Get>
double Sum(const PoolParts& parts, Get&& get) {
  double sum = 0;
  for (const PoolCells* part : parts) sum += static_cast<double>(get(*part).value());
  return sum;
}

template <typename Member>
void AddHistogramOf(Families& families, std::string_view name, std::string_view pool,
                    const PoolParts& parts, Member member) {
  HistogramSum<std::remove_cvref_t<decltype(parts[0]->*member)>> sum;
  for (const PoolCells* part : parts) sum.Add(part->*member);
  sum.AddTo(families, name, {{"pool", pool}});
}

// One sample for each value of an enumeration.
template <typename Names, typename Member>
void AddEnum(Families& families, std::string_view name, std::string_view pool,
             std::string_view label, const Names& names, const PoolParts& parts, Member member) {
  for (size_t i = 0; i < names.size(); ++i) {
    families.Add(name, {{"pool", pool}, {label, names[i]}},
                 Sum(parts, [&](const PoolCells& cells) -> const Cell& { return (cells.*member)[i]; }));
  }
}

void AddRequests(Families& families, std::string_view pool, const PoolParts& parts) {
  for (size_t code = 0; code < kCodes; ++code) {
    const bool other = code == kCountedCodes.size();
    const bool always =
        !other && std::ranges::find(kZeroCodes, kCountedCodes[code]) != kZeroCodes.end();
    const std::string text = other ? "other" : fmt::format("{}", kCountedCodes[code]);
    for (size_t stream = 0; stream < 2; ++stream) {
      const double count = Sum(parts, [&](const PoolCells& cells) -> const Cell& {
        return cells.requests[code][stream];
      });
      if (count == 0 && !always) continue;
      families.Add("penstock_http_requests_total",
                   {{"pool", pool}, {"code", text}, {"stream", stream == 1 ? "true" : "false"}},
                   count);
    }
  }
}

void AddPool(Families& families, std::string_view pool, const PoolParts& parts) {
  AddRequests(families, pool, parts);
  AddHistogramOf(families, "penstock_http_request_duration_seconds", pool, parts, &PoolCells::durations);
  AddHistogramOf(families, "penstock_request_ttft_seconds", pool, parts, &PoolCells::ttft);
  AddHistogramOf(families, "penstock_request_tpot_seconds", pool, parts, &PoolCells::tpot);
  AddHistogramOf(families, "penstock_overhead_seconds", pool, parts, &PoolCells::overhead);
  AddHistogramOf(families, "penstock_queue_wait_seconds", pool, parts, &PoolCells::queue_wait);
  const auto cell = [&](std::string_view name, Cell PoolCells::* member) {
    families.Add(name, {{"pool", pool}},
                 Sum(parts, [&](const PoolCells& cells) -> const Cell& { return cells.*member; }));
  };
  cell("penstock_http_requests_active", &PoolCells::active);
  cell("penstock_queue_depth", &PoolCells::queued);
  cell("penstock_retry_budget_exhausted_total", &PoolCells::retry_budget_exhausted);
  AddEnum(families, "penstock_response_flags_total", pool, "flag", kFlagNames, parts, &PoolCells::flags);
  AddEnum(families, "penstock_timeouts_total", pool, "kind", kTimeoutNames, parts, &PoolCells::timeouts);
  AddEnum(families, "penstock_retries_total", pool, "reason", kRetryReasonNames, parts, &PoolCells::retries);
  AddEnum(families, "penstock_deadline_exceeded_total", pool, "stage", kStageNames, parts, &PoolCells::deadlines);
  AddEnum(families, "penstock_hedges_total", pool, "result", kHedgeResultNames, parts, &PoolCells::hedges);
  cell("penstock_sse_keep_alives_total", &PoolCells::sse_keep_alives);
  AddEnum(families, "penstock_lb_decisions_total", pool, "outcome", kLbOutcomeNames, parts, &PoolCells::decisions);
  AddEnum(families, "penstock_cache_lookups_total", pool, "result", kCacheResultNames, parts,
          &PoolCells::cache_lookups);
}

void AddWorkers(const Scrape& scrape, Families& families) {
  std::map<std::string, PoolParts> pools;
  const auto total = [&](std::string_view name, Cell WorkerMetrics::* member) {
    double sum = 0;
    for (const WorkerMetrics* worker : scrape.workers) {
      sum += static_cast<double>((worker->*member).value());
    }
    families.Add(name, {}, sum);
  };
  const auto by = [&](std::string_view name, std::string_view label, const auto& words, auto member) {
    for (size_t i = 0; i < words.size(); ++i) {
      double sum = 0;
      for (const WorkerMetrics* worker : scrape.workers) {
        sum += static_cast<double>((worker->*member)[i].value());
      }
      families.Add(name, {{label, words[i]}}, sum);
    }
  };
  by("penstock_client_connections", "protocol", kClientProtocolNames, &WorkerMetrics::client_connections);
  by("penstock_client_h2_resets_total", "reason", kH2ResetNames, &WorkerMetrics::h2_resets);
  by("penstock_client_h2_goaways_total", "reason", kH2GoAwayNames, &WorkerMetrics::h2_goaways);
  by("penstock_client_h2_floods_total", "limit", kH2FloodNames, &WorkerMetrics::h2_floods);
  total("penstock_client_connections_total", &WorkerMetrics::client_connections_total);
  total("penstock_client_connections_refused_total", &WorkerMetrics::client_connections_refused);
  for (size_t i = 0; i < kProxyHeaderFaultNames.size(); ++i) {
    double sum = 0;
    for (const WorkerMetrics* worker : scrape.workers) {
      sum += static_cast<double>(worker->proxy_header_faults[i].value());
    }
    families.Add("penstock_proxy_protocol_errors_total", {{"reason", kProxyHeaderFaultNames[i]}}, sum);
  }
  const auto reason = [&](std::string_view name, std::string_view why, Cell WorkerMetrics::* member) {
    double sum = 0;
    for (const WorkerMetrics* worker : scrape.workers) {
      sum += static_cast<double>((worker->*member).value());
    }
    families.Add(name, {{"reason", why}}, sum);
  };
  reason("penstock_accept_pauses_total", "rate", &WorkerMetrics::pauses_for_rate);
  reason("penstock_accept_pauses_total", "memory", &WorkerMetrics::pauses_for_memory);
  reason("penstock_shed_requests_total", "memory", &WorkerMetrics::shed_for_memory);
  reason("penstock_shed_requests_total", "loop_delay", &WorkerMetrics::shed_for_delay);
  total("penstock_client_protocol_errors_total", &WorkerMetrics::protocol_errors);
  total("penstock_buffered_request_bytes", &WorkerMetrics::buffered_bytes);
  for (size_t i = 0; i < scrape.workers.size(); ++i) {
    for (const PoolCells* cells : scrape.workers[i]->Pools()) {
      pools[cells->name.empty() ? "none" : cells->name].push_back(cells);
    }
    HistogramSum<decltype(WorkerMetrics::loop_delay)> delay;
    delay.Add(scrape.workers[i]->loop_delay);
    delay.AddTo(families, "penstock_event_loop_delay_seconds", {{"worker", fmt::format("{}", i)}});
  }
  for (const auto& [pool, parts] : pools) AddPool(families, pool, parts);
}

void AddCaches(const Scrape& scrape, Families& families) {
  for (const auto& cache : scrape.caches) {
    const ResultCache::Stats stats = cache->stats();
    const std::string& name = cache->settings().name;
    const auto count = [](uint64_t value) { return static_cast<double>(value); };
    families.Add("penstock_cache_entries", {{"cache", name}}, count(stats.entries));
    families.Add("penstock_cache_bytes", {{"cache", name}}, count(stats.bytes));
    families.Add("penstock_cache_max_bytes", {{"cache", name}}, count(cache->settings().max_bytes));
    families.Add("penstock_cache_flights", {{"cache", name}}, count(stats.flights));
    const auto evicted = [&](std::string_view reason, uint64_t value) {
      families.Add("penstock_cache_evictions_total", {{"cache", name}, {"reason", reason}},
                   count(value));
    };
    evicted("size", stats.evicted);
    evicted("ttl", stats.expired);
    evicted("flush", stats.flushed);
    families.Add("penstock_cache_rejected_total", {{"cache", name}, {"reason", "too_large"}},
                 count(stats.too_large));
  }
}

void AddPolicy(const Scrape& scrape, Families& families) {
  const PolicyStatus& policy = scrape.policy;
  families.Add("penstock_build_info",
               {{"version", scrape.version}, {"revision", scrape.revision}}, 1);
  families.Add("penstock_ready", {}, scrape.ready ? 1 : 0);
  families.Add("penstock_config_last_reload_successful", {}, policy.last_reload_ok ? 1 : 0);
  families.Add("penstock_config_last_reload_success_timestamp_seconds", {},
               static_cast<double>(absl::ToUnixMillis(policy.accepted_at)) / 1000);
  families.Add("penstock_config_reloads_total", {{"result", "accepted"}},
               static_cast<double>(policy.accepted));
  families.Add("penstock_config_reloads_total", {{"result", "rejected"}},
               static_cast<double>(policy.rejected));
  families.Add("penstock_config_info",
               {{"hash", fmt::format("{:016x}", policy.hash)},
                {"generation", fmt::format("{}", policy.generation)}}, 1);
  families.Add("penstock_config_generation", {}, static_cast<double>(policy.generation));
  families.Add("penstock_config_generations_alive", {}, static_cast<double>(policy.alive));
  const OverloadStatus& overload = scrape.overload;
  families.Add("penstock_overload_level", {}, overload.level);
  families.Add("penstock_overload_level_changes_total", {}, static_cast<double>(overload.changes));
  families.Add("penstock_memory_used_bytes", {}, static_cast<double>(overload.memory_used));
  families.Add("penstock_log_lines_dropped_total", {{"log", "access"}},
               static_cast<double>(overload.access_lines_dropped));
  families.Add("penstock_log_lines_dropped_total", {{"log", "process"}},
               static_cast<double>(LogLinesDropped()));
  families.Add("penstock_memory_limit_bytes", {}, static_cast<double>(overload.memory_limit));
}

}  // namespace

std::string RenderMetrics(const Scrape& scrape) {
  Families families;
  AddPolicy(scrape, families);
  AddWorkers(scrape, families);
  AddBackends(scrape, families);
  AddCaches(scrape, families);
  AddTls(scrape, families);
  AddProcess(families);
  std::ostringstream text;
  prometheus::TextSerializer().Serialize(text, families.Take());
  return std::move(text).str();
}

}  // namespace penstock
