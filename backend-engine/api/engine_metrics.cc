#include "backend-engine/api/engine_metrics.h"

#include <fmt/format.h>
#include <prometheus/text_serializer.h>

#include <algorithm>
#include <cmath>
#include <utility>

namespace penstock::engine {
namespace {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;
using Labels = std::vector<std::pair<std::string, std::string>>;

// The names of one dialect, without its prefix.
struct Dialect {
  std::string_view prefix;
  std::string_view running, waiting, kv_usage, preemptions, prompt_tokens, generation_tokens;
  std::string_view first_token, next_token, whole, success, end_label;
};

constexpr Dialect kPenstock = {
    .prefix = "penstock_engine_",
    .running = "requests_running",
    .waiting = "requests_waiting",
    .kv_usage = "kv_cache_usage_ratio",
    .preemptions = "preemptions_total",
    .prompt_tokens = "prompt_tokens_total",
    .generation_tokens = "generation_tokens_total",
    .first_token = "time_to_first_token_seconds",
    .next_token = "inter_token_latency_seconds",
    .whole = "e2e_request_latency_seconds",
    .success = "request_success_total",
    .end_label = "finish_reason",
};
constexpr Dialect kVllm = {
    .prefix = "vllm:",
    .running = "num_requests_running",
    .waiting = "num_requests_waiting",
    .kv_usage = "kv_cache_usage_perc",
    .preemptions = "num_preemptions_total",
    .prompt_tokens = "prompt_tokens_total",
    .generation_tokens = "generation_tokens_total",
    .first_token = "time_to_first_token_seconds",
    .next_token = "inter_token_latency_seconds",
    .whole = "e2e_request_latency_seconds",
    .success = "request_success_total",
    .end_label = "finished_reason",
};

// Families of one exposition; every metric carries `base` labels.
class Page {
 public:
  Page(std::string_view prefix, Labels base) : prefix_(prefix), base_(std::move(base)) {}

  void Gauge(std::string_view name, std::string_view help, double value, Labels labels = {}) {
    Add(name, help, MetricType::Gauge, labels).gauge.value = value;
  }
  void Counter(std::string_view name, std::string_view help, double value, Labels labels = {}) {
    Add(name, help, MetricType::Counter, labels).counter.value = value;
  }
  void Histogram(std::string_view name, std::string_view help,
                 const prometheus::Histogram& histogram) {
    Add(name, help, MetricType::Histogram, {}).histogram = histogram.Collect().histogram;
  }

  std::string Text() const { return prometheus::TextSerializer().Serialize(families_); }

 private:
  ClientMetric& Add(std::string_view name, std::string_view help, MetricType type,
                    const Labels& labels) {
    const std::string full = fmt::format("{}{}", prefix_, name);
    if (families_.empty() || families_.back().name != full) {
      MetricFamily family;
      family.name = full;
      family.help = help;
      family.type = type;
      families_.push_back(std::move(family));
    }
    ClientMetric& metric = families_.back().metric.emplace_back();
    for (const Labels* list : std::initializer_list<const Labels*>{&base_, &labels}) {
      for (const auto& [label, value] : *list) metric.label.push_back({label, value});
    }
    return metric;
  }

  std::string_view prefix_;
  Labels base_;
  std::vector<MetricFamily> families_;
};

prometheus::Histogram::BucketBoundaries FirstTokenBuckets() {
  return {0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1,
          0.25,  0.5,   0.75, 0.8,  1,    2.5,  5,    7.5, 10, 30, 60};
}
prometheus::Histogram::BucketBoundaries NextTokenBuckets() {
  return {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15,
          0.2,   0.3,    0.4,   0.5,  0.75,  1,    2.5};
}
prometheus::Histogram::BucketBoundaries WholeBuckets() {
  return {0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92,
          300};
}

// Places of blocks in use that hold no token: a block's unused end, and what is
// kept for tokens to come.
double KvFragmentation(const NodeLabels& labels, const EngineLoad& load) {
  const double places = static_cast<double>(load.kv_blocks_used) * labels.block_tokens;
  return places > 0 ? std::clamp(1 - static_cast<double>(load.running_tokens) / places, 0.0, 1.0)
                    : 0;
}

Labels LabelOf(const GpuInUse& gpu) { return {{"gpu", fmt::format("{}", gpu.index)}}; }

// A family a figure; GPUs that do not tell it are left out.
void AddFigures(Page& page, const DeviceGauges& devices) {
  const struct {
    const char* name;
    const char* help;
    double GpuFigures::* figure;
    bool counts;
  } families[] = {
      {"gpu_utilization_ratio", "Share of time in which the GPU ran a kernel, 0 to 1",
       &GpuFigures::utilization, false},
      {"gpu_memory_used_bytes", "Memory of the GPU in use, by all processes",
       &GpuFigures::memory_used, false},
      {"gpu_memory_total_bytes", "Memory of the GPU", &GpuFigures::memory_total, false},
      {"gpu_temperature_celsius", "Temperature of the GPU", &GpuFigures::temperature, false},
      {"gpu_power_watts", "Power the GPU draws", &GpuFigures::power, false},
      {"gpu_nvlinks_active", "NVLinks of the GPU that are up", &GpuFigures::links_active, false},
      {"gpu_nvlinks_inactive", "NVLinks of the GPU that are down", &GpuFigures::links_inactive,
       false},
      {"gpu_nvlink_sent_bytes_total", "Bytes sent over all NVLinks of the GPU",
       &GpuFigures::link_bytes_sent, true},
      {"gpu_nvlink_received_bytes_total", "Bytes received over all NVLinks of the GPU",
       &GpuFigures::link_bytes_received, true},
  };
  const auto& figures = devices.reading.figures;
  for (const auto& family : families) {
    for (size_t i = 0; i < std::min(figures.size(), devices.gpus.size()); ++i) {
      const double value = figures[i].*family.figure;
      if (std::isnan(value)) continue;
      const Labels labels = LabelOf(devices.gpus[i]);
      family.counts ? page.Counter(family.name, family.help, value, labels)
                    : page.Gauge(family.name, family.help, value, labels);
    }
  }
}

void AddDevices(Page& page, const DeviceGauges& devices) {
  for (const GpuInUse& gpu : devices.gpus) {
    for (const GpuInUse::Part& part : gpu.memory) {
      Labels labels = LabelOf(gpu);
      labels.emplace_back("part", part.name);
      page.Gauge("gpu_planned_bytes", "What the engine's memory on the GPU is for",
                 static_cast<double>(part.bytes), labels);
    }
  }
  if (devices.gpus.empty() || !devices.reading.possible) return;
  page.Gauge("gpu_figures_age_seconds", "How long ago the driver last told of the GPUs",
             devices.reading.age_seconds);
  AddFigures(page, devices);
}

void AddOwn(Page& page, const NodeLabels& labels, const EngineLoad& load, double load_progress) {
  page.Gauge("kv_cache_fragmentation_ratio", "Share of the KV blocks in use that holds no token",
             KvFragmentation(labels, load));
  page.Gauge("kv_blocks", "Blocks of the KV cache, by state", load.kv_blocks_used,
             {{"state", "used"}});
  page.Gauge("kv_blocks", "", load.kv_blocks_total - load.kv_blocks_used, {{"state", "free"}});
  page.Gauge("tokens_waiting", "Prompt tokens not yet computed",
             static_cast<double>(load.waiting_tokens));
  page.Gauge("tokens_running", "Tokens held by running sequences",
             static_cast<double>(load.running_tokens));
  page.Gauge("max_running", "Sequences that can be computed side by side", load.max_running);
  page.Counter("steps_total", "Steps computed since start", static_cast<double>(load.steps));
  page.Gauge("step_seconds", "Mean duration of the last steps", load.step_ms / 1e3);
  page.Gauge("prefill_tokens_per_second", "Measured prefill rate", load.prefill_tokens_per_s);
  page.Gauge("model_load_progress_ratio", "Share of the model that is loaded", load_progress);
  page.Gauge("ready", "1 while the engine takes requests", load.state == NodeState::kReady);
  page.Gauge("info", "What this engine is; always 1", 1,
             {{"version", labels.version},
              {"device", labels.device},
              {"tp", fmt::format("{}", labels.tensor_parallel)},
              {"dtype", labels.dtype}});
}

}  // namespace

EngineMetrics::EngineMetrics(MetricNames names)
    : names_(names),
      first_token_(FirstTokenBuckets()),
      next_token_(NextTokenBuckets()),
      whole_(WholeBuckets()) {}

void EngineMetrics::OnEnd(EndReason reason, double seconds) {
  if (reason == EndReason::kSlowClient && names_ == MetricNames::kVllm) reason = EndReason::kAbort;
  ++ended_[static_cast<size_t>(reason)];
  if (reason == EndReason::kStop || reason == EndReason::kLength) whole_.Observe(seconds);
}

void EngineMetrics::OnAnswer(int status) {
  const auto digit = static_cast<size_t>(status / 100);
  if (digit < answers_.size()) ++answers_[digit];
}

std::string EngineMetrics::Text(const NodeLabels& labels, const EngineLoad& load,
                                double load_progress, const DeviceGauges& devices) const {
  const bool own = names_ == MetricNames::kPenstock;
  const Dialect& names = own ? kPenstock : kVllm;
  Labels base = own ? Labels{{"model", labels.model}}
                    : Labels{{"engine", "0"}, {"model_name", labels.model}};
  Page page(names.prefix, std::move(base));
  const double kv_usage = load.kv_blocks_total > 0
                              ? static_cast<double>(load.kv_blocks_used) / load.kv_blocks_total
                              : 0;
  page.Gauge(names.running, "Sequences being computed", load.running);
  page.Gauge(names.waiting, "Sequences waiting to be computed", load.waiting);
  page.Gauge(names.kv_usage, "Share of the KV cache in use, 0 to 1", kv_usage);
  page.Counter(names.preemptions, "Sequences put back to make room",
               static_cast<double>(load.preemptions));
  page.Counter(names.prompt_tokens, "Prompt tokens taken in",
               static_cast<double>(load.prompt_tokens));
  page.Counter(names.generation_tokens, "Tokens generated",
               static_cast<double>(load.generated_tokens));
  page.Histogram(names.first_token, "From a request's submission to its first token",
                 first_token_);
  page.Histogram(names.next_token, "Between two tokens of an answer", next_token_);
  page.Histogram(names.whole, "From a request's submission to its last token", whole_);
  for (size_t reason = 0; reason < kEndReasons.size(); ++reason) {
    if (!own && reason == static_cast<size_t>(EndReason::kSlowClient)) continue;
    page.Counter(names.success, "Sequences ended, by reason", static_cast<double>(ended_[reason]),
                 {{std::string(names.end_label), std::string(kEndReasons[reason])}});
  }
  if (own) {
    for (size_t digit = 2; digit < answers_.size(); ++digit) {
      page.Counter("http_answers_total", "Answers to inference requests, by class of status",
                   static_cast<double>(answers_[digit]), {{"code", fmt::format("{}xx", digit)}});
    }
    AddOwn(page, labels, load, load_progress);
    AddDevices(page, devices);
  } else {
    page.Gauge("cache_config_info", "How the KV cache is cut; always 1", 1,
               {{"block_size", fmt::format("{}", labels.block_tokens)},
                {"num_gpu_blocks", fmt::format("{}", load.kv_blocks_total)}});
  }
  return page.Text();
}

}  // namespace penstock::engine
