#include "tests/gpu/report.h"

#include <cmath>
#include <cstdio>

namespace penstock::engine {
namespace {

std::string Escaped(const std::string& text) {
  std::string escaped;
  for (const char c : text) {
    if (c == '"' || c == '\\') escaped += '\\';
    escaped += static_cast<unsigned char>(c) < 32 ? ' ' : c;
  }
  return escaped;
}

// JSON knows no infinity and no NaN.
std::string Number(double value) {
  char text[40];
  std::snprintf(text, sizeof text, std::fabs(value) < 1e300 ? "%.5g" : "null", value);
  return text;
}

std::string GoalOf(const Timing& timing) {
  if (!timing.HasGoal()) return "";
  const bool most = timing.at_most > 0;
  return (most ? "<= " : ">= ") + Number(most ? timing.at_most : timing.at_least);
}

std::string RecordOf(const CheckResult& result) {
  return R"({"op": ")" + Escaped(result.op) + R"(", "shape": ")" + Escaped(result.shape) +
         R"(", "error": )" + Number(result.error) + R"(, "allowed": )" + Number(result.allowed) +
         R"(, "passed": )" + (result.passed() ? "true" : "false") + "}";
}

std::string RecordOf(const Timing& timing, double share) {
  std::string record = R"({"what": ")" + Escaped(timing.what) + R"(", "us": )" +
                       Number(timing.microseconds) + R"(, "rate": )" + Number(timing.rate) +
                       R"(, "unit": ")" + timing.unit + "\"";
  if (share > 0) record += R"(, "of_ceiling": )" + Number(share);
  if (timing.HasGoal()) {
    record += R"(, "goal": ")" + GoalOf(timing) + R"(", "met": )" +
              (timing.MeetsGoal() ? "true" : "false");
  }
  if (!timing.turns.empty()) {
    record += R"(, "turns_us": [)";
    for (size_t i = 0; i < timing.turns.size(); ++i) {
      record += (i > 0 ? ", " : "") + Number(timing.turns[i]);
    }
    record += "]";
  }
  return record + "}";
}

}  // namespace

int Report::Failed() const {
  int failed = 0;
  for (const CheckResult& result : results_) failed += result.passed() ? 0 : 1;
  return failed;
}

double Report::ShareOfCeiling(const Timing& timing) const {
  const double ceiling = timing.bytes > 0 ? bytes_ceiling_ : flops_ceiling_;
  if (ceiling <= 0 || timing.microseconds <= 0) return 0;
  return (timing.bytes > 0 ? timing.bytes : timing.flops) / timing.microseconds * 1e6 / ceiling;
}

void Report::Print() const {
  int goals = 0, met = 0;
  for (const CheckResult& result : results_) {
    if (result.passed()) continue;
    std::printf("FAILED  %s, %s: error %g, allowed %g\n", result.op.c_str(), result.shape.c_str(),
                result.error, result.allowed);
  }
  for (const Timing& timing : timings_) {
    const double share = ShareOfCeiling(timing);
    std::printf("%-56s %11.1f us %10.2f %-7s", timing.what.c_str(), timing.microseconds,
                timing.rate, timing.unit.c_str());
    if (share > 0) std::printf(" %5.1f %% of the ceiling", 100 * share);
    if (timing.HasGoal()) {
      ++goals;
      met += timing.MeetsGoal() ? 1 : 0;
      std::printf("  %s %s", GoalOf(timing).c_str(), timing.MeetsGoal() ? "met" : "MISSED");
    }
    std::printf("\n");
  }
  if (goals > 0) std::printf("speed: %d of %d goals met (they are an H200's)\n", met, goals);
  std::printf("gpu_check: %zu checks, %d failed\n", results_.size(), Failed());
}

bool Report::Write(const std::string& path) const {
  std::FILE* file = std::fopen(path.c_str(), "w");
  if (file == nullptr) return false;
  std::fprintf(file, "{\n");
  for (const auto& [name, value] : facts_) {
    std::fprintf(file, " \"%s\": \"%s\",\n", Escaped(name).c_str(), Escaped(value).c_str());
  }
  std::fprintf(file, " \"failed\": %d,\n \"checks\": [", Failed());
  for (size_t i = 0; i < results_.size(); ++i) {
    std::fprintf(file, "%s\n  %s", i > 0 ? "," : "", RecordOf(results_[i]).c_str());
  }
  std::fprintf(file, "],\n \"timings\": [");
  for (size_t i = 0; i < timings_.size(); ++i) {
    const std::string record = RecordOf(timings_[i], ShareOfCeiling(timings_[i]));
    std::fprintf(file, "%s\n  %s", i > 0 ? "," : "", record.c_str());
  }
  std::fprintf(file, "]\n}\n");
  const bool whole = std::ferror(file) == 0;
  return std::fclose(file) == 0 && whole;
}

}  // namespace penstock::engine
