#include "proxy/backends/load_report.h"

#include <simdjson.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstring>
#include <string>

#include <fmt/format.h>

#include "absl/status/status.h"
#include "proxy/base/status.h"

namespace penstock {
namespace {

constexpr double kFigureMax = 1e12;
constexpr double kAgeMax = 3600e6;              // An hour, in microseconds.
constexpr float kShareScale = 1e6f;             // A bare share of KV blocks, as used of total.

struct Figure {
  std::string_view key;
  float LoadReport::* member;
};
constexpr std::array kFigures = std::to_array<Figure>({
    {"running", &LoadReport::running},
    {"waiting", &LoadReport::waiting},
    {"waiting_tokens", &LoadReport::waiting_tokens},
    {"running_tokens", &LoadReport::running_tokens},
    {"max_running", &LoadReport::max_running},
    {"kv_blocks_used", &LoadReport::kv_blocks_used},
    {"kv_blocks_total", &LoadReport::kv_blocks_total},
    {"prefill_tokens_per_s", &LoadReport::prefill_tokens_per_s},
    {"step_ms", &LoadReport::step_ms},
    {"ttft_ms_p50", &LoadReport::ttft_ms_p50},
    // vLLM's names, in its ORCA fields.
    {"num_requests_running", &LoadReport::running},
    {"num_requests_waiting", &LoadReport::waiting},
});
constexpr std::array<std::string_view, 2> kShares = {"kv_cache_usage_perc", "kv_cache_utilization"};

absl::Status Refused(std::string_view key, std::string_view found, std::string_view expected) {
  return absl::InvalidArgumentError(
      fmt::format("load report: {}: found {}, expected {}", key, found, expected));
}

// A number as it was written: exact where it is a whole one.
struct Number {
  double value = 0;
  uint64_t whole = 0;
};

absl::Status SetFigure(LoadReport& report, std::string_view key, const Number& number) {
  const double value = number.value;
  if (!std::isfinite(value) || value < 0) {
    return Refused(key, fmt::format("{}", value), "a number of at least 0");
  }
  if (key == "epoch" || key == "seq" || key == "weights") {
    (key == "epoch" ? report.epoch : key == "seq" ? report.seq : report.weights) = number.whole;
    return absl::OkStatus();
  }
  if (key == "age_us") {
    if (value > kAgeMax) return Refused(key, fmt::format("{}", value), "at most an hour");
    report.made = report.arrived - static_cast<MonoTime>(value);
    return absl::OkStatus();
  }
  if (std::ranges::find(kShares, key) != kShares.end()) {
    if (value > 1) return Refused(key, fmt::format("{}", value), "a share from 0 to 1");
    report.kv_blocks_used = static_cast<float>(value) * kShareScale;
    report.kv_blocks_total = kShareScale;
    return absl::OkStatus();
  }
  const auto figure = std::ranges::find(kFigures, key, &Figure::key);
  if (figure == kFigures.end()) return absl::OkStatus();
  if (value > kFigureMax) return Refused(key, fmt::format("{}", value), "at most 1e12");
  report.*(figure->member) = static_cast<float>(value);
  return absl::OkStatus();
}

absl::StatusOr<LoadReport> Checked(const LoadReport& report) {
  if (report.kv_blocks_total >= 0 && report.kv_blocks_used > report.kv_blocks_total) {
    return Refused("kv_blocks_used", fmt::format("{}", report.kv_blocks_used),
                   fmt::format("at most kv_blocks_total, {}", report.kv_blocks_total));
  }
  return report;
}

// An identity spelt as text: FNV-1a, as it only has to be equal for equal texts.
uint64_t Identity(std::string_view text) {
  uint64_t hash = 0xcbf29ce484222325;
  for (const char c : text) hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001b3;
  return text.empty() ? 0 : hash;
}

EngineState StateOf(std::string_view word) {
  for (const EngineState state : {EngineState::kLoading, EngineState::kReady, EngineState::kDraining,
                                  EngineState::kAsleep, EngineState::kFailed}) {
    if (word == Name(state)) return state;
  }
  return EngineState::kUnknown;
}

void SetText(LoadReport& report, std::string_view key, std::string_view text) {
  if (key == "state") report.state = StateOf(text);
  if (key == "epoch") report.epoch = Identity(text);
  if (key == "weights") report.weights = Identity(text);
  if (key == "model") {
    const size_t length = std::min(text.size(), LoadReport::kModelBytes - 1);
    std::memcpy(report.model, text.data(), length);
    report.model[length] = '\0';
  }
}

bool IsText(std::string_view key) {
  return key == "state" || key == "model" || key == "epoch" || key == "weights";
}

absl::Status SetValue(LoadReport& report, std::string_view key, simdjson::dom::element value) {
  const bool known = IsText(key) || key == "seq" || key == "age_us" ||
                     std::ranges::find(kFigures, key, &Figure::key) != kFigures.end() ||
                     std::ranges::find(kShares, key) != kShares.end();
  if (!known || value.is_null()) return absl::OkStatus();
  std::string_view text;
  if (value.get(text) == simdjson::SUCCESS) {
    if (!IsText(key)) return Refused(key, "a string", "a number");
    SetText(report, key, text);
    return absl::OkStatus();
  }
  Number number;
  if (value.get(number.value) != simdjson::SUCCESS || key == "state" || key == "model") {
    return Refused(key, "another type", IsText(key) ? "a string" : "a number");
  }
  if (value.get(number.whole) != simdjson::SUCCESS) {
    number.whole = number.value >= 0 && number.value < 1e18 ? static_cast<uint64_t>(number.value) : 0;
  }
  return SetFigure(report, key, number);
}

absl::StatusOr<simdjson::dom::object> ParseObject(simdjson::dom::parser& parser,
                                                  std::string_view text) {
  if (text.size() > kLoadLineMax) {
    return Refused("line", fmt::format("{} bytes", text.size()),
                   fmt::format("at most {}", kLoadLineMax));
  }
  simdjson::dom::object object;
  const auto error = parser.parse(text.data(), text.size()).get(object);
  if (error != simdjson::SUCCESS) {
    return Refused("line", simdjson::error_message(error), "one JSON object");
  }
  return object;
}

// One parser a thread, so that reading a report allocates nothing after the first.
simdjson::dom::parser& Parser() {
  thread_local simdjson::dom::parser parser;
  return parser;
}

LoadReport Blank(lb::Rung rung, MonoTime now) {
  LoadReport report;
  report.rung = rung;
  report.arrived = report.made = now;
  return report;
}

std::string_view Trim(std::string_view text) {
  const auto first = text.find_first_not_of(" \t");
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(" \t") - first + 1);
}

// The metric's own name within ORCA's groups; empty: a figure we do not use.
std::string_view NamedMetric(std::string_view key) {
  for (const std::string_view group : {"named_metrics.", "utilization."}) {
    if (key.starts_with(group)) return key.substr(group.size());
  }
  return {};
}

absl::StatusOr<LoadReport> ParseOrcaText(std::string_view list, MonoTime now) {
  LoadReport report = Blank(lb::Rung::kPiggyback, now);
  while (!list.empty()) {
    const size_t comma = std::min(list.find(','), list.size());
    const std::string_view entry = Trim(list.substr(0, comma));
    list.remove_prefix(std::min(comma + 1, list.size()));
    const size_t separator = entry.find_first_of("=:");
    if (separator == std::string_view::npos || separator == 0) {
      return Refused("endpoint-load-metrics", "an entry without a value", "key=value");
    }
    const std::string_view key = Trim(entry.substr(0, separator));
    const std::string_view text = Trim(entry.substr(separator + 1));
    const std::string_view name = NamedMetric(key);
    if (name == "state" || name == "model") {
      SetText(report, name, text);
      continue;
    }
    Number number;
    const char* end = text.data() + text.size();
    const auto parsed = std::from_chars(text.data(), end, number.value);
    if (parsed.ec != std::errc() || parsed.ptr != end) {
      if (IsText(name) && !text.empty()) {
        SetText(report, name, text);
        continue;
      }
      return Refused("endpoint-load-metrics", "a value that is no number", "key=number");
    }
    if (std::from_chars(text.data(), end, number.whole).ptr != end) number.whole = 0;
    if (auto status = SetFigure(report, name.empty() ? key : name, number); !status.ok()) {
      return status;
    }
  }
  return Checked(report);
}

absl::StatusOr<LoadReport> ParseOrcaJson(std::string_view text, MonoTime now) {
  auto object = ParseObject(Parser(), text);
  if (!object.ok()) return object.status();
  LoadReport report = Blank(lb::Rung::kPiggyback, now);
  for (const auto group : *object) {
    simdjson::dom::object members;
    const bool named = group.key == "named_metrics" || group.key == "utilization";
    if (!named || group.value.get(members) != simdjson::SUCCESS) continue;
    for (const auto member : members) {
      if (auto status = SetValue(report, member.key, member.value); !status.ok()) return status;
    }
  }
  return Checked(report);
}

}  // namespace

std::string_view Name(EngineState state) {
  switch (state) {
    case EngineState::kUnknown: return "unknown";
    case EngineState::kLoading: return "loading";
    case EngineState::kReady: return "ready";
    case EngineState::kDraining: return "draining";
    case EngineState::kAsleep: return "asleep";
    case EngineState::kFailed: return "failed";
  }
  return "";
}

std::string_view Name(lb::Rung rung) {
  switch (rung) {
    case lb::Rung::kPush: return "push";
    case lb::Rung::kPiggyback: return "piggyback";
    case lb::Rung::kPoll: return "poll";
    case lb::Rung::kOwn: return "own";
  }
  return "";
}

absl::StatusOr<LoadReport> ParseLoadLine(std::string_view line, lb::Rung rung, MonoTime now) {
  auto object = ParseObject(Parser(), line);
  if (!object.ok()) return object.status();
  LoadReport report = Blank(rung, now);
  for (const auto member : *object) {
    if (auto status = SetValue(report, member.key, member.value); !status.ok()) return status;
  }
  if (!report.has_total()) return Refused("running, waiting", "neither", "at least one of them");
  return Checked(report);
}

absl::StatusOr<LoadReport> ParseOrca(std::string_view field, MonoTime now) {
  field = Trim(field);
  if (field.size() > kLoadLineMax) {
    return Refused("endpoint-load-metrics", fmt::format("{} bytes", field.size()),
                   fmt::format("at most {}", kLoadLineMax));
  }
  if (field.starts_with("BIN ")) {
    return absl::UnimplementedError("endpoint-load-metrics: BIN is not read; use TEXT or JSON");
  }
  if (field.starts_with("JSON ")) return ParseOrcaJson(field.substr(5), now);
  if (field.starts_with("TEXT ")) field.remove_prefix(5);
  if (Trim(field).empty()) return Refused("endpoint-load-metrics", "nothing", "key=number");
  return ParseOrcaText(field, now);
}

}  // namespace penstock
