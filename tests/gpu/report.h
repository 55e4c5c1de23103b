// What tests/gpu/check found, on the terminal and as a JSON record for
// docs/gpu-results.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "tests/gpu/op_checks.h"

namespace penstock::engine {

// A measured time of `what`, with the rate that it means.
struct Timing {
  std::string what;
  double microseconds = 0;
  double rate = 0;           // In `unit`.
  std::string unit;          // "TB/s", "TFLOP/s", "tok/s", "ms"
  double bytes = 0;          // Of memory that must move in that time, or
  double flops = 0;          // what must be computed: for the share of the ceiling. Or 0.
  double at_least = 0;       // Where the rate shall be, on an H200; 0: nothing is asked.
  double at_most = 0;
  std::vector<double> turns = {};  // Microseconds, each time that it was measured.

  bool HasGoal() const { return at_least > 0 || at_most > 0; }
  // NaN meets nothing.
  bool MeetsGoal() const { return at_most > 0 ? rate <= at_most : rate >= at_least; }
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

  // What this GPU can do at most, as measured in this run, a second.
  void Ceilings(double bytes, double flops) {
    bytes_ceiling_ = bytes;
    flops_ceiling_ = flops;
  }

  int Failed() const;  // Checks. A speed that falls short is no failure.
  const std::vector<Timing>& timings() const { return timings_; }

  // Failures, timings, and a line each on speeds and checks last.
  void Print() const;
  bool Write(const std::string& path) const;

 private:
  double ShareOfCeiling(const Timing& timing) const;  // 0: there is none to compare with.

  std::vector<std::pair<std::string, std::string>> facts_;
  std::vector<CheckResult> results_;
  std::vector<Timing> timings_;
  double bytes_ceiling_ = 0, flops_ceiling_ = 0;
};

}  // namespace penstock::engine
