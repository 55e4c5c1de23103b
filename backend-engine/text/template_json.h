// JSON in and out of chat templates: order is kept, and what tojson writes is
// byte for byte what Python's json.dumps(ensure_ascii=False) writes.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "backend-engine/text/template_value.h"

namespace penstock::engine::jinja {

// Refuses duplicate keys and more than 64 levels; `what` names the text in
// messages ("messages"). Integers beyond 64 bits become floats.
absl::StatusOr<Value> ParseJson(std::string_view text, std::string_view what);

struct JsonStyle {
  int indent = -1;  // Negative: one line.
  std::string item_separator = ", ";  // Without its blank where indent is set.
  std::string key_separator = ": ";
  bool sort_keys = false;
};

// Returns what is not JSON ("Undefined"), or "" where all was written. Stops
// soon after `out` has more than `bytes_max`.
std::string AppendJson(const Value& value, const JsonStyle& style, size_t bytes_max,
                       std::string& out);

}  // namespace penstock::engine::jinja
