#include "backend-engine/api/load_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <iterator>
#include <vector>

#include "backend-engine/api/json_text.h"

namespace penstock::engine {
namespace {

void AppendMeasured(std::string& out, std::string_view name, double value) {
  if (value > 0) fmt::format_to(std::back_inserter(out), R"(,"{}":{:.3f})", name, value);
}

struct NamedFigure {
  std::string_view name;
  double value;
};

// The names that vLLM reports under, and ours for what it has none for.
std::vector<NamedFigure> OrcaFigures(const LoadReport& report) {
  const EngineLoad& load = report.figures;
  std::vector<NamedFigure> figures;
  if (load.kv_blocks_total > 0) {
    const double share = static_cast<double>(load.kv_blocks_used) / load.kv_blocks_total;
    figures.push_back({"kv_cache_usage_perc", std::round(share * 1e4) / 1e4});
  }
  figures.push_back({"num_requests_waiting", static_cast<double>(load.waiting)});
  figures.push_back({"num_requests_running", static_cast<double>(load.running)});
  figures.push_back({"max_running", static_cast<double>(load.max_running)});
  figures.push_back({"epoch", static_cast<double>(report.epoch)});
  figures.push_back({"seq", static_cast<double>(report.seq)});
  return figures;
}

}  // namespace

std::string_view Name(NodeState state) {
  switch (state) {
    case NodeState::kLoading: return "loading";
    case NodeState::kReady: return "ready";
    case NodeState::kDraining: return "draining";
    case NodeState::kAsleep: return "asleep";
    case NodeState::kFailed: return "failed";
  }
  return "failed";
}

std::string LoadLine(const LoadReport& report) {
  const EngineLoad& load = report.figures;
  std::string out = fmt::format(R"({{"epoch":{},"seq":{},"age_us":{},"state":"{}","model":)",
                                report.epoch, report.seq, report.age_us, Name(load.state));
  AppendJsonString(out, report.model);
  fmt::format_to(std::back_inserter(out),
                 R"(,"running":{},"waiting":{},"waiting_tokens":{},"running_tokens":{})",
                 load.running, load.waiting, load.waiting_tokens, load.running_tokens);
  if (load.max_running > 0) {
    fmt::format_to(std::back_inserter(out),
                   R"(,"max_running":{},"kv_blocks_used":{},"kv_blocks_total":{})",
                   load.max_running, load.kv_blocks_used, load.kv_blocks_total);
  }
  AppendMeasured(out, "prefill_tokens_per_s", load.prefill_tokens_per_s);
  AppendMeasured(out, "step_ms", load.step_ms);
  AppendMeasured(out, "ttft_ms_p50", load.ttft_ms_p50);
  if (!report.weights.empty()) {
    out += R"(,"weights":)";
    AppendJsonString(out, report.weights);
  }
  out += "}\n";
  return out;
}

OrcaFormat OrcaFormatFrom(std::string_view asked) {
  constexpr std::string_view kJson = "json";
  const bool json = std::equal(asked.begin(), asked.end(), kJson.begin(), kJson.end(),
                               [](char a, char b) {
                                 return std::tolower(static_cast<unsigned char>(a)) == b;
                               });
  return json ? OrcaFormat::kJson : OrcaFormat::kText;
}

std::string OrcaValue(const LoadReport& report, OrcaFormat format) {
  const bool json = format == OrcaFormat::kJson;
  std::string out = json ? R"(JSON {"named_metrics": {)" : "TEXT ";
  const char* separator = "";
  for (const NamedFigure& figure : OrcaFigures(report)) {
    out += separator;
    if (json) {
      fmt::format_to(std::back_inserter(out), R"("{}": {})", figure.name, figure.value);
    } else {
      fmt::format_to(std::back_inserter(out), "named_metrics.{}={}", figure.name, figure.value);
    }
    separator = ", ";
  }
  if (json) out += "}}";
  return out;
}

bool WorthTelling(const EngineLoad& told, const EngineLoad& now) {
  return told.state != now.state || told.running != now.running || told.waiting != now.waiting ||
         told.waiting_tokens != now.waiting_tokens || told.max_running != now.max_running ||
         told.kv_blocks_used != now.kv_blocks_used || told.kv_blocks_total != now.kv_blocks_total;
}

}  // namespace penstock::engine
