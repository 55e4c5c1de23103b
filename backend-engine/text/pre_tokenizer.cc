#include "backend-engine/text/pre_tokenizer.h"

#include <algorithm>
#include <string>
#include <utility>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "absl/status/status.h"
#include "backend-engine/load/json_file.h"

namespace penstock::engine {
namespace {

using nlohmann::json;

constexpr size_t kStepsMax = 64;

constexpr std::string_view kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

absl::Status Wrong(const std::string& why) {
  return absl::InvalidArgumentError("pre_tokenizer: " + why);
}

std::string TextOf(const json& object, const char* field) {
  const auto found = object.find(field);
  return found != object.end() && found->is_string() ? found->get<std::string>() : std::string();
}

bool FlagOf(const json& object, const char* field, bool absent) {
  const auto found = object.find(field);
  return found != object.end() && found->is_boolean() ? found->get<bool>() : absent;
}

struct Span {
  size_t begin;
  size_t end;
  bool is_match;
};

}  // namespace

absl::StatusOr<PreTokenizer> PreTokenizer::FromJson(const json& description) {
  PreTokenizer out;
  if (absl::Status status = out.Add(description, 0); !status.ok()) return status;
  if (!out.byte_level_) return Wrong("no ByteLevel; only byte-level tokenizers are supported");
  return out;
}

absl::Status PreTokenizer::Add(const json& description, int depth) {
  if (!description.is_object() || depth > 8) return Wrong("expected an object with a type");
  if (byte_level_) return Wrong("a step after ByteLevel; expected ByteLevel last");
  if (steps_.size() >= kStepsMax) return Wrong(fmt::format("more than {} steps", kStepsMax));
  const std::string type = TextOf(description, "type");
  if (type == "Sequence") {
    const auto list = description.find("pretokenizers");
    if (list == description.end() || !list->is_array()) {
      return Wrong("Sequence: pretokenizers is no list");
    }
    for (const json& step : *list) {
      if (absl::Status status = Add(step, depth + 1); !status.ok()) return status;
    }
    return absl::OkStatus();
  }
  if (type == "Split") return AddSplit(description);
  if (type == "Digits") {
    return AddRegex(FlagOf(description, "individual_digits", false) ? R"(\p{N})" : R"(\p{N}+)");
  }
  if (type == "ByteLevel") {
    if (FlagOf(description, "add_prefix_space", true)) {
      return Wrong("ByteLevel: add_prefix_space true; supported: false");
    }
    if (FlagOf(description, "use_regex", true)) {
      if (absl::Status status = AddRegex(kGpt2Pattern); !status.ok()) return status;
    }
    byte_level_ = true;
    return absl::OkStatus();
  }
  return Wrong(fmt::format("type {}; supported: Sequence, Split, Digits, ByteLevel",
                           Quoted(type)));
}

absl::Status PreTokenizer::AddRegex(std::string_view pattern) {
  absl::StatusOr<Regex> regex = Regex::Compile(pattern);
  if (!regex.ok()) return Wrong(std::string(regex.status().message()));
  steps_.push_back({.regex = std::move(*regex)});
  return absl::OkStatus();
}

absl::Status PreTokenizer::AddSplit(const json& description) {
  static constexpr std::pair<std::string_view, Behavior> kBehaviors[] = {
      {"Isolated", Behavior::kIsolated},
      {"Removed", Behavior::kRemoved},
      {"MergedWithPrevious", Behavior::kMergedWithPrevious},
      {"MergedWithNext", Behavior::kMergedWithNext},
      {"Contiguous", Behavior::kContiguous}};
  const std::string name = TextOf(description, "behavior");
  const auto* behavior = std::find_if(std::begin(kBehaviors), std::end(kBehaviors),
                                      [&](const auto& entry) { return entry.first == name; });
  if (behavior == std::end(kBehaviors)) return Wrong("Split: behavior " + Quoted(name));
  const auto pattern = description.find("pattern");
  if (pattern == description.end() || !pattern->is_object()) return Wrong("Split: no pattern");
  const std::string regex_text = TextOf(*pattern, "Regex");
  const std::string literal = TextOf(*pattern, "String");
  if (regex_text.empty() == literal.empty()) return Wrong("Split: expected Regex or String");
  absl::StatusOr<Regex> regex =
      literal.empty() ? Regex::Compile(regex_text) : Regex::Literal(literal);
  if (!regex.ok()) return Wrong("Split: " + std::string(regex.status().message()));
  steps_.push_back({.regex = std::move(*regex),
                    .behavior = behavior->second,
                    .invert = FlagOf(description, "invert", false)});
  return absl::OkStatus();
}

absl::StatusOr<std::vector<std::string_view>> PreTokenizer::Split(std::string_view text,
                                                                  size_t pieces_max) const {
  std::vector<std::string_view> pieces = {text};
  for (auto step = steps_.begin(); step != steps_.end(); ++step) {
    // Each piece becomes at least one of the next step, unless a step removes some.
    const bool keeps = std::none_of(step, steps_.end(), [](const Step& later) {
      return later.behavior == Behavior::kRemoved;
    });
    const size_t most = keeps ? pieces_max : kNoLimit;
    std::vector<std::string_view> next;
    for (const std::string_view piece : pieces) {
      if (next.size() > most) break;
      if (absl::Status status = Cut(*step, piece, most, next); !status.ok()) return status;
    }
    pieces = std::move(next);
  }
  return pieces;
}

absl::Status PreTokenizer::Cut(const Step& step, std::string_view piece, size_t pieces_max,
                               std::vector<std::string_view>& out) {
  // Matches and what lies between them, together the whole piece.
  std::vector<Span> spans;
  size_t at = 0;
  while (at < piece.size()) {
    if (step.behavior == Behavior::kIsolated && out.size() + spans.size() > pieces_max) break;
    const auto match = step.regex.Find(piece, at);
    if (!match.ok()) return match.status();
    const size_t begin = match->has_value() ? (*match)->begin : piece.size();
    if (begin > at) spans.push_back({at, begin, step.invert});
    if (!match->has_value()) break;
    at = (*match)->end;
    spans.push_back({begin, at, !step.invert});
  }

  std::vector<Span> merged;
  for (size_t i = 0; i < spans.size(); ++i) {
    const Span& span = spans[i];
    const bool after_match = i > 0 && spans[i - 1].is_match;
    bool join = false;  // With the span before it.
    switch (step.behavior) {
      case Behavior::kIsolated:
        break;
      case Behavior::kRemoved:
        if (span.is_match) continue;
        break;
      case Behavior::kMergedWithPrevious:
        join = i > 0 && span.is_match && !after_match;
        break;
      case Behavior::kMergedWithNext:
        join = after_match && !span.is_match;
        break;
      case Behavior::kContiguous:
        join = i > 0 && span.is_match == after_match;
        break;
    }
    if (join) {
      merged.back().end = span.end;
    } else {
      merged.push_back(span);
    }
  }
  for (const Span& span : merged) out.push_back(piece.substr(span.begin, span.end - span.begin));
  return absl::OkStatus();
}

}  // namespace penstock::engine
