// Collects samples into metric families, each under its line of the table.
#pragma once

#include <prometheus/metric_family.h>

#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "proxy/admin/metrics.h"

namespace penstock {

class Families {
 public:
  using Labels = std::initializer_list<std::pair<std::string_view, std::string_view>>;

  Families();

  // REQUIRES: `name` is in the table, as a counter or a gauge, with those labels.
  void Add(std::string_view name, Labels labels, double value);

  // `buckets` are not cumulative and one longer than `bounds`; all in seconds.
  void AddHistogram(std::string_view name, Labels labels, std::span<const double> bounds,
                    std::span<const double> buckets, double sum);

  // In the order of the table; families without a sample are left out.
  std::vector<prometheus::MetricFamily> Take();

 private:
  prometheus::ClientMetric& NewSample(std::string_view name, Labels labels);

  std::vector<prometheus::MetricFamily> families_;
};

// The parts of a scrape, each in its file.
void AddBackends(const Scrape& scrape, Families& families);
void AddTls(const Scrape& scrape, Families& families);
void AddProcess(Families& families);

}  // namespace penstock
