// simdjson's DOM keeps members in document order and keeps duplicates, so both
// are checked here in one walk. Numbers "spelt as they came": the DOM has
// already turned them into values, so the canonical form takes their spelling
// from the original bytes, which the walk meets in the same order.
#include "proxy/request/peek.h"

#include <simdjson.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

#include <fmt/format.h>

#include "proxy/base/status.h"

namespace penstock {
namespace {

using simdjson::dom::element;
using simdjson::dom::element_type;

std::string_view TypeName(element_type type) {
  switch (type) {
    case element_type::ARRAY: return "an array";
    case element_type::OBJECT: return "an object";
    case element_type::STRING: return "a string";
    case element_type::BOOL: return "a boolean";
    case element_type::NULL_VALUE: return "null";
    default: return "a number";
  }
}

absl::Status WrongType(std::string_view field, std::string_view wanted, const element& found) {
  return absl::InvalidArgumentError(
      fmt::format("{}: expected {}, found {}", field, wanted, TypeName(found.type())));
}

// Names the first key that an object at or below `value` holds twice.
absl::Status RefuseDuplicates(const element& value, std::vector<std::string_view>& keys) {
  if (value.type() == element_type::ARRAY) {
    for (element child : simdjson::dom::array(value)) {
      if (child.is_array() || child.is_object()) RETURN_IF_ERROR(RefuseDuplicates(child, keys));
    }
    return absl::OkStatus();
  }
  if (value.type() != element_type::OBJECT) return absl::OkStatus();
  const size_t begin = keys.size();
  for (auto [key, child] : simdjson::dom::object(value)) keys.push_back(key);
  std::sort(keys.begin() + begin, keys.end());
  const auto twice = std::adjacent_find(keys.begin() + begin, keys.end());
  if (twice != keys.end()) {
    return absl::InvalidArgumentError(
        fmt::format("the key \"{}\" occurs twice in one object; send it once", twice->substr(0, 64)));
  }
  keys.resize(begin);
  for (auto [key, child] : simdjson::dom::object(value)) {
    if (child.is_array() || child.is_object()) RETURN_IF_ERROR(RefuseDuplicates(child, keys));
  }
  return absl::OkStatus();
}

template <typename T>
absl::Status ReadNumber(std::string_view field, const element& value, std::optional<T>& out) {
  if (value.is_null()) return absl::OkStatus();
  T number;
  if (value.get(number) != simdjson::SUCCESS) {
    return WrongType(field, std::is_integral_v<T> ? "an integer" : "a number", value);
  }
  out = number;
  return absl::OkStatus();
}

absl::Status ReadField(std::string_view key, const element& value, PeekedRequest& out) {
  if (key == "model") {
    if (value.get(out.model) != simdjson::SUCCESS) return WrongType(key, "a string", value);
  } else if (key == "stream") {
    if (!value.is_null() && value.get(out.stream) != simdjson::SUCCESS) {
      return WrongType(key, "true or false", value);
    }
  } else if (key == "max_tokens") {
    if (!out.max_tokens) return ReadNumber(key, value, out.max_tokens);
  } else if (key == "max_completion_tokens") {
    return ReadNumber(key, value, out.max_tokens);
  } else if (key == "temperature") {
    return ReadNumber(key, value, out.temperature);
  } else if (key == "seed") {
    return ReadNumber(key, value, out.seed);
  } else if (key == "top_k") {
    return ReadNumber(key, value, out.top_k);
  } else if (key == "n") {
    std::optional<int64_t> n;
    RETURN_IF_ERROR(ReadNumber(key, value, n));
    out.n = n.value_or(1);
  }
  return absl::OkStatus();
}

void AppendString(std::string_view text, std::string& out) {
  static constexpr char kHex[] = "0123456789abcdef";
  out += '"';
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (byte < 0x20) {
      out += "\\u00";
      out += kHex[byte >> 4];
      out += kHex[byte & 15];
    } else {
      out += c;
    }
  }
  out += '"';
}

// Walks the original bytes and hands out number spellings in document order.
class NumberSpellings {
 public:
  explicit NumberSpellings(std::string_view json) {
    for (size_t i = 0; i < json.size();) {
      const char c = json[i];
      if (c == '"') {
        for (++i; i < json.size() && json[i] != '"'; ++i) i += json[i] == '\\';
        ++i;
      } else if (c == '-' || (c >= '0' && c <= '9')) {
        const size_t begin = i;
        while (i < json.size() && std::strchr("+-.eE0123456789", json[i]) && json[i]) ++i;
        spellings_.push_back(json.substr(begin, i - begin));
      } else {
        ++i;
      }
    }
  }
  std::string_view at(size_t index) const { return spellings_[index]; }

 private:
  std::vector<std::string_view> spellings_;
};

// How many numbers stand in `value`, in document order.
size_t CountNumbers(const element& value) {
  size_t count = 0;
  if (value.is_array()) {
    for (element child : simdjson::dom::array(value)) count += CountNumbers(child);
  } else if (value.is_object()) {
    for (auto [key, child] : simdjson::dom::object(value)) count += CountNumbers(child);
  } else if (value.is_number()) {
    count = 1;
  }
  return count;
}

// `number` is the document-order index of the first number in `value`.
void AppendValue(const element& value, size_t number, const NumberSpellings& spellings,
                 std::string& out) {
  switch (value.type()) {
    case element_type::ARRAY: {
      char separator = '[';
      for (element child : simdjson::dom::array(value)) {
        out += separator;
        separator = ',';
        AppendValue(child, number, spellings, out);
        number += CountNumbers(child);
      }
      if (separator == '[') out += '[';
      out += ']';
      return;
    }
    case element_type::OBJECT: {
      struct Member {
        std::string_view key;
        element value;
        size_t number;
      };
      std::vector<Member> members;
      for (auto [key, child] : simdjson::dom::object(value)) {
        members.push_back({key, child, number});
        number += CountNumbers(child);
      }
      std::sort(members.begin(), members.end(),
                [](const Member& a, const Member& b) { return a.key < b.key; });
      char separator = '{';
      for (const Member& member : members) {
        out += separator;
        separator = ',';
        AppendString(member.key, out);
        out += ':';
        AppendValue(member.value, member.number, spellings, out);
      }
      if (separator == '{') out += '{';
      out += '}';
      return;
    }
    case element_type::STRING: AppendString(std::string_view(value), out); return;
    case element_type::BOOL: out += bool(value) ? "true" : "false"; return;
    case element_type::NULL_VALUE: out += "null"; return;
    default: out += spellings.at(number); return;
  }
}

}  // namespace

struct Peeker::State {
  explicit State(uint32_t depth) : depth_max(depth) {}
  uint32_t depth_max;
  simdjson::dom::parser parser;
  simdjson::ondemand::parser places;
  std::string copy;                      // Of a body without room.
  std::string_view text;                 // The body, with simdjson's padding behind it.
  element root;
  std::vector<std::string_view> keys;    // Scratch.
};

Peeker::Peeker(uint32_t depth_max) : state_(std::make_unique<State>(depth_max)) {}
Peeker::~Peeker() = default;

void Peeker::SetDepthMax(uint32_t depth_max) { state_->depth_max = depth_max; }

absl::StatusOr<PeekedRequest> Peeker::Peek(std::string_view body) {
  state_->copy.reserve(body.size() + kPadding);
  state_->copy.assign(body);
  return Peek(state_->copy);
}

absl::StatusOr<PeekedRequest> Peeker::Peek(std::string& body) {
  static_assert(kPadding >= simdjson::SIMDJSON_PADDING);
  State& state = *state_;
  if (body.capacity() < body.size() + kPadding) body.reserve(body.size() + kPadding);
  state.text = body;
  if (state.parser.capacity() < body.size() || state.parser.max_depth() != state.depth_max) {
    if (state.parser.allocate(std::max<size_t>(body.size(), 4096), state.depth_max)) {
      return absl::ResourceExhaustedError("no memory to read the body");
    }
  }
  const auto error = state.parser.parse(state.text.data(), body.size(), false).get(state.root);
  if (error == simdjson::DEPTH_ERROR) {
    return absl::InvalidArgumentError(
        fmt::format("the body is nested deeper than {} levels", state.depth_max));
  }
  if (error) {
    return absl::InvalidArgumentError(
        fmt::format("the body is not valid JSON: {}", simdjson::error_message(error)));
  }
  if (!state.root.is_object()) {
    return absl::InvalidArgumentError(
        fmt::format("the body must be a JSON object, found {}", TypeName(state.root.type())));
  }
  state.keys.clear();
  RETURN_IF_ERROR(RefuseDuplicates(state.root, state.keys));
  PeekedRequest out;
  out.prompt_tokens_estimate = static_cast<uint32_t>(body.size() / 4);
  for (auto [key, value] : simdjson::dom::object(state.root)) {
    RETURN_IF_ERROR(ReadField(key, value, out));
  }
  if (out.model.empty()) {
    return absl::InvalidArgumentError("model: missing; name the model that shall answer");
  }
  return out;
}

// The DOM has copied the strings and forgotten where they were, so the bytes are read
// once more, as far as the member.
absl::Status Peeker::RenameModel(std::string_view name, std::string& body) {
  const char* const begin = state_->text.data();
  simdjson::ondemand::document document;
  simdjson::ondemand::object members;
  if (state_->places.iterate(begin, state_->text.size(), state_->text.size() + kPadding).get(document) ||
      document.get_object().get(members)) {
    return absl::ResourceExhaustedError("no memory to read the body");
  }
  for (auto member : members) {
    std::string_view key;
    std::string_view model;
    if (member.unescaped_key().get(key) || key != "model") continue;
    if (member.value().raw_json_token().get(model)) continue;
    model = model.substr(0, model.rfind('"') + 1);   // Without the white space behind it.
    std::string quoted;
    AppendString(name, quoted);
    body.replace(static_cast<size_t>(model.data() - begin), model.size(), quoted);
    return Peek(body).status();
  }
  return absl::InternalError("the model is gone");
}

void Peeker::AppendCanonical(std::string& out) const {
  const NumberSpellings spellings(state_->text);
  AppendValue(state_->root, 0, spellings, out);
}

}  // namespace penstock
