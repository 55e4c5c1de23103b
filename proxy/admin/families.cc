#include "proxy/admin/families.h"

#include <algorithm>
#include <limits>

#include "proxy/base/check.h"

namespace penstock {
namespace {

prometheus::MetricType TypeOf(MetricKind kind) {
  switch (kind) {
    case MetricKind::kCounter: return prometheus::MetricType::Counter;
    case MetricKind::kGauge: return prometheus::MetricType::Gauge;
    case MetricKind::kHistogram: return prometheus::MetricType::Histogram;
  }
  return prometheus::MetricType::Untyped;
}

// "a, b" has exactly these labels, in this order.
bool SameLabels(std::string_view row, Families::Labels labels) {
  std::string names;
  for (const auto& [name, value] : labels) {
    if (!names.empty()) names += ", ";
    names += name;
  }
  return names == row;
}

}  // namespace

Families::Families() {
  for (const MetricInfo& info : AllMetrics()) {
    prometheus::MetricFamily family;
    family.name = info.name;
    family.help = info.help;
    family.type = TypeOf(info.kind);
    families_.push_back(std::move(family));
  }
}

prometheus::ClientMetric& Families::NewSample(std::string_view name, Labels labels) {
  const auto all = AllMetrics();
  const auto row = std::ranges::find(all, name, &MetricInfo::name);
  CHECK(row != all.end(), "a metric without a line in metrics_table.cc");
  CHECK(SameLabels(row->labels, labels), "a metric with other labels than its line says");
  auto& samples = families_[static_cast<size_t>(row - all.begin())].metric;
  auto& sample = samples.emplace_back();
  for (const auto& [label, value] : labels) {
    sample.label.push_back({std::string(label), std::string(value)});
  }
  return sample;
}

void Families::Add(std::string_view name, Labels labels, double value) {
  prometheus::ClientMetric& sample = NewSample(name, labels);
  sample.counter.value = value;
  sample.gauge.value = value;
}

void Families::AddHistogram(std::string_view name, Labels labels, std::span<const double> bounds,
                            std::span<const double> buckets, double sum) {
  CHECK(buckets.size() == bounds.size() + 1);
  prometheus::ClientMetric::Histogram& histogram = NewSample(name, labels).histogram;
  uint64_t count = 0;
  for (size_t i = 0; i < buckets.size(); ++i) {
    count += static_cast<uint64_t>(buckets[i]);
    const double bound =
        i < bounds.size() ? bounds[i] : std::numeric_limits<double>::infinity();
    histogram.bucket.push_back({count, bound});
  }
  histogram.sample_count = count;
  histogram.sample_sum = sum;
}

std::vector<prometheus::MetricFamily> Families::Take() {
  std::erase_if(families_, [](const auto& family) { return family.metric.empty(); });
  return std::move(families_);
}

}  // namespace penstock
