// What GET /metrics says: the engine's own figures as it publishes them, and
// what only the API sees (latencies of answers, how they ended). Under our own
// names, or under those of vLLM where dashboards and routers expect them.
//
// Threads: the loop's.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <prometheus/histogram.h>
#include <prometheus/metric_family.h>

#include "backend-engine/exec/device_watch.h"
#include "backend-engine/exec/engine.h"

namespace penstock::engine {

enum class MetricNames { kPenstock, kVllm };

// What is fixed about the node, for labels.
struct NodeLabels {
  std::string model;
  std::string device;
  std::string dtype;
  std::string version;
  int32_t tensor_parallel = 1;
  int32_t block_tokens = 0;
};

// The GPUs in use, and what their driver says of them; nothing elsewhere.
struct DeviceGauges {
  std::span<const GpuInUse> gpus;
  DeviceReading reading = {.possible = false};
};

// How an answer's sequence ended, for penstock_engine_request_success_total and its sisters.
// Among vLLM's names a slow client's is an abort.
enum class EndReason : uint8_t { kStop, kLength, kAbort, kError, kSlowClient };
inline constexpr std::array<std::string_view, 5> kEndReasons = {"stop", "length", "abort", "error",
                                                                "slow_client"};

class EngineMetrics {
 public:
  explicit EngineMetrics(MetricNames names);

  void OnFirstToken(double seconds) { first_token_.Observe(seconds); }
  void OnNextToken(double seconds) { next_token_.Observe(seconds); }
  void OnEnd(EndReason reason, double seconds);
  void OnAnswer(int status);

  // The text of the exposition format.
  std::string Text(const NodeLabels& labels, const EngineLoad& load, double load_progress,
                   const DeviceGauges& devices = {}) const;

  uint64_t ended(EndReason reason) const { return ended_[static_cast<size_t>(reason)]; }

 private:
  MetricNames names_;
  prometheus::Histogram first_token_;
  prometheus::Histogram next_token_;
  prometheus::Histogram whole_;
  std::array<uint64_t, kEndReasons.size()> ended_{};
  std::array<uint64_t, 6> answers_{};  // By the first digit of the status.
};

}  // namespace penstock::engine
