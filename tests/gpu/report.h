// What tests/gpu/check found, on the terminal and as a JSON record for
// docs/gpu-results.
#pragma once

#include <cstdio>
#include <string>
#include <utility>
#include <vector>

#include "tests/gpu/op_checks.h"

namespace penstock::engine {

// A measured time: of `what`, in microseconds, with the rate that it means.
struct Timing {
  std::string what;
  double microseconds = 0;
  double rate = 0;     // In `unit`, or 0.
  std::string unit;    // "TB/s", "TFLOP/s", "tok/s"
};

class Report {
 public:
  void Fact(std::string name, std::string value) {
    facts_.emplace_back(std::move(name), std::move(value));
  }
  void Add(CheckResult result) { results_.push_back(std::move(result)); }
  void Add(const std::vector<CheckResult>& results) {
    results_.insert(results_.end(), results.begin(), results.end());
  }
  void Time(Timing timing) { timings_.push_back(std::move(timing)); }

  int Failed() const {
    int failed = 0;
    for (const CheckResult& result : results_) failed += result.passed() ? 0 : 1;
    return failed;
  }

  // Failures, timings, and one line last.
  void Print() const {
    for (const CheckResult& result : results_) {
      if (result.passed()) continue;
      std::printf("FAILED  %s, %s: error %g, allowed %g\n", result.op.c_str(),
                  result.shape.c_str(), result.error, result.allowed);
    }
    for (const Timing& timing : timings_) {
      std::printf("%-52s %10.1f us %10.2f %s\n", timing.what.c_str(), timing.microseconds,
                  timing.rate, timing.unit.c_str());
    }
    std::printf("gpu_check: %zu checks, %d failed\n", results_.size(), Failed());
  }

  bool Write(const std::string& path) const {
    std::FILE* file = std::fopen(path.c_str(), "w");
    if (file == nullptr) return false;
    std::fprintf(file, "{\n");
    for (const auto& [name, value] : facts_) {
      std::fprintf(file, " \"%s\": \"%s\",\n", Escaped(name).c_str(), Escaped(value).c_str());
    }
    std::fprintf(file, " \"failed\": %d,\n \"checks\": [", Failed());
    for (size_t i = 0; i < results_.size(); ++i) {
      const CheckResult& result = results_[i];
      // JSON knows no infinity and no NaN.
      const bool number = result.error < 1e300;
      std::fprintf(file, "%s\n  {\"op\": \"%s\", \"shape\": \"%s\", \"error\": ", i > 0 ? "," : "",
                   Escaped(result.op).c_str(), Escaped(result.shape).c_str());
      number ? std::fprintf(file, "%.3g", result.error) : std::fprintf(file, "null");
      std::fprintf(file, ", \"allowed\": %.3g, \"passed\": %s}", result.allowed,
                   result.passed() ? "true" : "false");
    }
    std::fprintf(file, "],\n \"timings\": [");
    for (size_t i = 0; i < timings_.size(); ++i) {
      const Timing& timing = timings_[i];
      std::fprintf(file, "%s\n  {\"what\": \"%s\", \"us\": %.3f, \"rate\": %.4g, \"unit\": \"%s\"}",
                   i > 0 ? "," : "", Escaped(timing.what).c_str(), timing.microseconds,
                   timing.rate, timing.unit.c_str());
    }
    std::fprintf(file, "]\n}\n");
    return std::fclose(file) == 0;
  }

 private:
  static std::string Escaped(const std::string& text) {
    std::string escaped;
    for (const char c : text) {
      if (c == '"' || c == '\\') escaped += '\\';
      escaped += static_cast<unsigned char>(c) < 32 ? ' ' : c;
    }
    return escaped;
  }

  std::vector<std::pair<std::string, std::string>> facts_;
  std::vector<CheckResult> results_;
  std::vector<Timing> timings_;
};

}  // namespace penstock::engine
