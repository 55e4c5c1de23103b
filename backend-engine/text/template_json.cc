#include "backend-engine/text/template_json.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "absl/status/status.h"
#include "backend-engine/load/json_file.h"
#include "backend-engine/text/template_text.h"

namespace penstock::engine::jinja {
namespace {

using nlohmann::json;

class ValueBuilder {
 public:
  bool null() { return Add(Value::None()); }
  bool boolean(bool value) { return Add(Value::Bool(value)); }
  bool number_integer(json::number_integer_t value) { return Add(Value::Int(value)); }
  bool number_unsigned(json::number_unsigned_t value) {
    return Add(value <= INT64_MAX ? Value::Int(static_cast<int64_t>(value))
                                  : Value::Float(static_cast<double>(value)));
  }
  bool number_float(json::number_float_t value, const std::string&) {
    return Add(Value::Float(value));
  }
  bool string(std::string& value) { return Add(Value::String(std::move(value))); }
  bool binary(json::binary_t&) { return false; }
  bool start_object(size_t) { return Open(false); }
  bool start_array(size_t) { return Open(true); }

  bool key(std::string& name) {
    Frame& frame = stack_.back();
    if (frame.dict.Find(name) != nullptr) {
      error = "key " + Quoted(name) + " appears twice";
      return false;
    }
    frame.key = std::move(name);
    return true;
  }

  bool end_object() {
    Value value = Value::Of(std::move(stack_.back().dict));
    stack_.pop_back();
    return Add(std::move(value));
  }

  bool end_array() {
    Value value = Value::List(std::move(stack_.back().items));
    stack_.pop_back();
    return Add(std::move(value));
  }

  bool parse_error(size_t position, const std::string& last, const json::exception&) {
    error = fmt::format("not valid JSON at byte {}, near {}", position, Quoted(last));
    return false;
  }

  Value root;
  std::string error;

 private:
  struct Frame {
    bool is_list;
    Values items = {};
    Dict dict = {};
    std::string key = {};
  };

  bool Open(bool is_list) {
    if (stack_.size() >= kJsonDepthMax) {
      error = fmt::format("nested deeper than {} levels", kJsonDepthMax);
      return false;
    }
    stack_.push_back({.is_list = is_list});
    return true;
  }

  bool Add(Value value) {
    if (stack_.empty()) {
      root = std::move(value);
    } else if (stack_.back().is_list) {
      stack_.back().items.push_back(std::move(value));
    } else {
      stack_.back().dict.Set(stack_.back().key, std::move(value));
    }
    return true;
  }

  std::vector<Frame> stack_;
};

class JsonWriter {
 public:
  JsonWriter(const JsonStyle& style, size_t bytes_max, std::string& out)
      : style_(style), bytes_max_(bytes_max), out_(out) {}

  void Write(const Value& value, int level) {
    if (!error.empty() || out_.size() > bytes_max_) return;
    switch (value.kind()) {
      case Value::Kind::kNone:
        out_ += "null";
        return;
      case Value::Kind::kBool:
        out_ += value.Truthy() ? "true" : "false";
        return;
      case Value::Kind::kInt:
      case Value::Kind::kFloat:
        out_ += Number(value);
        return;
      case Value::Kind::kString:
        WriteString(value.string());
        return;
      case Value::Kind::kList:
      case Value::Kind::kTuple:
        return WriteList(value.items(), level);
      case Value::Kind::kDict:
        return WriteDict(value.dict(), level);
      default:
        error = value.type_name();
    }
  }

  std::string error;

 private:
  static std::string Number(const Value& value) {
    if (value.is_integer()) return std::to_string(value.integer());
    if (std::isnan(value.number())) return "NaN";
    if (std::isinf(value.number())) return value.number() > 0 ? "Infinity" : "-Infinity";
    return FloatRepr(value.number());
  }

  void WriteString(std::string_view text) {
    out_ += '"';
    for (const char c : text) {
      switch (c) {
        case '"': out_ += "\\\""; break;
        case '\\': out_ += "\\\\"; break;
        case '\n': out_ += "\\n"; break;
        case '\r': out_ += "\\r"; break;
        case '\t': out_ += "\\t"; break;
        case '\b': out_ += "\\b"; break;
        case '\f': out_ += "\\f"; break;
        default:
          if (static_cast<unsigned char>(c) < 0x20) {
            out_ += fmt::format("\\u{:04x}", static_cast<int>(c));
          } else {
            out_ += c;
          }
      }
    }
    out_ += '"';
  }

  void NewLine(int level) {
    if (style_.indent < 0) return;
    out_ += '\n';
    out_.append(static_cast<size_t>(style_.indent) * static_cast<size_t>(level), ' ');
  }

  void WriteList(const Values& items, int level) {
    out_ += '[';
    for (size_t i = 0; i < items.size() && out_.size() <= bytes_max_; ++i) {
      if (i > 0) out_ += style_.item_separator;
      NewLine(level + 1);
      Write(items[i], level + 1);
    }
    if (!items.empty()) NewLine(level);
    out_ += ']';
  }

  void WriteDict(const Dict& dict, int level) {
    std::vector<std::pair<std::string, const Value*>> entries;
    for (const auto& [key, value] : dict.items()) {
      std::string name = "null";
      if (key.is_string()) name = key.string();
      else if (key.Is(Value::Kind::kBool)) name = key.Truthy() ? "true" : "false";
      else if (key.is_number()) name = Number(key);
      entries.emplace_back(std::move(name), &value);
    }
    if (style_.sort_keys) {
      std::stable_sort(entries.begin(), entries.end(),
                       [](const auto& a, const auto& b) { return a.first < b.first; });
    }
    out_ += '{';
    for (size_t i = 0; i < entries.size() && out_.size() <= bytes_max_; ++i) {
      if (i > 0) out_ += style_.item_separator;
      NewLine(level + 1);
      WriteString(entries[i].first);
      out_ += style_.key_separator;
      Write(*entries[i].second, level + 1);
    }
    if (!entries.empty()) NewLine(level);
    out_ += '}';
  }

  const JsonStyle& style_;
  size_t bytes_max_;
  std::string& out_;
};

}  // namespace

absl::StatusOr<Value> ParseJson(std::string_view text, std::string_view what) {
  ValueBuilder builder;
  if (!json::sax_parse(text.begin(), text.end(), &builder)) {
    return absl::InvalidArgumentError(fmt::format("{}: {}", what, builder.error));
  }
  return std::move(builder.root);
}

std::string AppendJson(const Value& value, const JsonStyle& style, size_t bytes_max,
                       std::string& out) {
  JsonWriter writer(style, bytes_max, out);
  writer.Write(value, 0);
  return writer.error;
}

}  // namespace penstock::engine::jinja
