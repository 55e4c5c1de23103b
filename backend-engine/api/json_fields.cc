#include "backend-engine/api/json_fields.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <vector>

namespace penstock::engine {

using simdjson::dom::array;
using simdjson::dom::element;
using simdjson::dom::element_type;
using simdjson::dom::object;

namespace {

constexpr size_t kQuoteBytes = 40;

// Cut at a character's border, control bytes as '?': it stands in a line for people.
std::string Quote(std::string_view text) {
  std::string cut(text.substr(0, kQuoteBytes));
  if (text.size() > kQuoteBytes) {
    while (!cut.empty() && (static_cast<uint8_t>(text[cut.size()]) & 0xC0) == 0x80) cut.pop_back();
    cut += "...";
  }
  for (char& c : cut) {
    if (static_cast<uint8_t>(c) < 0x20 || c == 0x7F) c = '?';
  }
  return '"' + cut + '"';
}

// The first key that an object of the document holds twice.
std::optional<std::string_view> RepeatedKey(element value) {
  if (value.is_array()) {
    for (element item : array(value.get_array().value_unsafe())) {
      if (auto key = RepeatedKey(item)) return key;
    }
    return std::nullopt;
  }
  if (!value.is_object()) return std::nullopt;
  const object fields = value.get_object().value_unsafe();
  std::vector<std::string_view> keys;
  for (const auto field : fields) {
    keys.push_back(field.key);
    if (auto key = RepeatedKey(field.value)) return key;
  }
  std::sort(keys.begin(), keys.end());
  const auto twice = std::adjacent_find(keys.begin(), keys.end());
  if (twice == keys.end()) return std::nullopt;
  return *twice;
}

std::string NumberText(double value) { return fmt::format("{:g}", value); }

}  // namespace

std::string Found(element value) {
  switch (value.type()) {
    case element_type::ARRAY:
      return fmt::format("an array of {}", value.get_array().value_unsafe().size());
    case element_type::OBJECT: return "an object";
    case element_type::INT64: return fmt::format("{}", value.get_int64().value_unsafe());
    case element_type::UINT64: return fmt::format("{}", value.get_uint64().value_unsafe());
    case element_type::DOUBLE: return NumberText(value.get_double().value_unsafe());
    case element_type::STRING: return Quote(value.get_string().value_unsafe());
    case element_type::BOOL: return value.get_bool().value_unsafe() ? "true" : "false";
    case element_type::NULL_VALUE: return "null";
  }
  return "something else";
}

std::optional<int64_t> WholeNumber(element value) {
  int64_t whole = 0;
  if (value.get(whole) == simdjson::SUCCESS) return whole;
  double real = 0;
  if (!value.is_double() || value.get(real) != simdjson::SUCCESS) return std::nullopt;
  if (real != std::trunc(real) || std::abs(real) >= 9e15) return std::nullopt;
  return static_cast<int64_t>(real);
}

std::optional<element> JsonFields::Any(std::string_view name) const {
  element value;
  if (!ok() || object_.at_key(name).get(value) != simdjson::SUCCESS || value.is_null()) {
    return std::nullopt;
  }
  return value;
}

std::optional<bool> JsonFields::Bool(std::string_view name) {
  const auto value = Any(name);
  if (!value) return std::nullopt;
  bool result;
  if (value->get(result) == simdjson::SUCCESS) return result;
  Refuse(name, "true or false");
  return std::nullopt;
}

std::optional<int64_t> JsonFields::Integer(std::string_view name, int64_t low, int64_t high) {
  const auto value = Any(name);
  if (!value) return std::nullopt;
  const auto result = WholeNumber(*value);
  if (result && *result >= low && *result <= high) return result;
  Refuse(name, fmt::format("a whole number from {} to {}", low, high));
  return std::nullopt;
}

std::optional<double> JsonFields::Number(std::string_view name, double low, double high,
                                         bool low_excluded) {
  const auto value = Any(name);
  if (!value) return std::nullopt;
  double result;
  if (value->get(result) == simdjson::SUCCESS && result <= high &&
      (low_excluded ? result > low : result >= low)) {
    return result;
  }
  Refuse(name, low_excluded
                   ? fmt::format("a number above {}, up to {}", NumberText(low), NumberText(high))
                   : fmt::format("a number from {} to {}", NumberText(low), NumberText(high)));
  return std::nullopt;
}

std::optional<std::string_view> JsonFields::String(std::string_view name, size_t bytes_max) {
  const auto value = Any(name);
  if (!value) return std::nullopt;
  std::string_view text;
  if (value->get(text) == simdjson::SUCCESS && text.size() <= bytes_max) return text;
  Refuse(name, fmt::format("a string of up to {} bytes", bytes_max));
  return std::nullopt;
}

void JsonFields::Refuse(std::string_view name, std::string_view allowed) {
  if (!ok()) return;
  element value;
  const bool there = object_.at_key(name).get(value) == simdjson::SUCCESS;
  Fail(name, there ? fmt::format("{} is {}; allowed: {}", Path(name), Found(value), allowed)
                   : fmt::format("{} is missing; it must be {}", Path(name), allowed));
}

void JsonFields::Fail(std::string_view name, std::string message) {
  if (ok()) error_ = BadField(Path(name), std::move(message));
}

std::optional<object> JsonDocument::Parse(std::string& body, std::optional<ApiError>& error) {
  const auto refuse = [&](std::string message) {
    error = ApiError{.message = std::move(message)};
    return std::nullopt;
  };
  if (!parser_ || parser_->capacity() > kKeepBytes) {
    parser_.emplace();
    if (parser_->allocate(64 * 1024, kRequestDepthMax) != simdjson::SUCCESS) {
      return refuse("the body could not be parsed: no memory");
    }
  }
  if (body.find_first_not_of(" \t\r\n") == std::string::npos) {
    return refuse("the body is empty; allowed: one JSON object");
  }
  body.reserve(body.size() + simdjson::SIMDJSON_PADDING);
  element root;
  const auto code = parser_->parse(body).get(root);
  if (code == simdjson::DEPTH_ERROR) {
    return refuse(fmt::format("the body is nested deeper than {} levels", kRequestDepthMax));
  }
  if (code != simdjson::SUCCESS) {
    return refuse(fmt::format("the body is not valid JSON: {}", simdjson::error_message(code)));
  }
  object top;
  if (root.get(top) != simdjson::SUCCESS) {
    return refuse(fmt::format("the body is {}; allowed: one JSON object", Found(root)));
  }
  if (const auto key = RepeatedKey(root)) {
    error = BadField(std::string(*key), fmt::format("the key {} stands twice in one object; "
                                                    "every key may be given once", Quote(*key)));
    return std::nullopt;
  }
  return top;
}

}  // namespace penstock::engine
