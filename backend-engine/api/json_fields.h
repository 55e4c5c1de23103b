// Reading the fields of one JSON object that came from a client: each call names
// a field and what is allowed; the first thing that is wrong is kept, and every
// call after it does nothing. So a parser reads straight down and asks once, at
// the end, whether all was well. A field that is null counts as not given.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include <simdjson.h>

#include "backend-engine/api/api_error.h"

namespace penstock::engine {

inline constexpr size_t kRequestDepthMax = 64;

// What a value is, for messages: 3.5, "hot" (cut short), null, an array of 3, an object.
std::string Found(simdjson::dom::element value);

class JsonFields {
 public:
  // `path` is put before the names in messages: "messages[2]."; empty at the top.
  // `error` outlives the reader and may be shared by several.
  JsonFields(simdjson::dom::object object, std::string path, std::optional<ApiError>& error)
      : object_(object), path_(std::move(path)), error_(error) {}

  bool ok() const { return !error_.has_value(); }

  // The value as it is; nothing if it is missing, null or something is wrong already.
  std::optional<simdjson::dom::element> Any(std::string_view name) const;

  std::optional<bool> Bool(std::string_view name);
  std::optional<int64_t> Integer(std::string_view name, int64_t low, int64_t high);
  // Above `low` instead of from it where `low_excluded`.
  std::optional<double> Number(std::string_view name, double low, double high,
                               bool low_excluded = false);
  std::optional<std::string_view> String(std::string_view name, size_t bytes_max);

  // Keeps "`name` is FOUND; allowed: ALLOWED" (or "is missing") unless something is wrong already.
  void Refuse(std::string_view name, std::string_view allowed);
  void Fail(std::string_view name, std::string message);
  std::string Path(std::string_view name) const { return path_ + std::string(name); }

 private:
  simdjson::dom::object object_;
  std::string path_;
  std::optional<ApiError>& error_;
};

// A whole number, also where it is written as 16.0, as some clients write all numbers.
std::optional<int64_t> WholeNumber(simdjson::dom::element value);

// One document of a request: parsed whole, at most 64 deep, an object at the top,
// no key twice in any object. One parser a loop, reused.
class JsonDocument {
 public:
  // Valid until the next call; `body` gains padding.
  std::optional<simdjson::dom::object> Parse(std::string& body, std::optional<ApiError>& error);

 private:
  static constexpr size_t kKeepBytes = 1 << 20;  // A parser grown above this is not kept.

  std::optional<simdjson::dom::parser> parser_;
};

}  // namespace penstock::engine
