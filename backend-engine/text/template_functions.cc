#include <algorithm>

#include <fmt/format.h>

#include "backend-engine/text/template_builtins.h"
#include "backend-engine/text/template_text.h"

namespace penstock::engine::jinja {
namespace {

constexpr int64_t kRangeMax = 100'000;  // As in Jinja's sandbox.

Value Range(Interpreter& interpreter, const Arguments& arguments) {
  int64_t bounds[3] = {0, 0, 1};
  const size_t count = arguments.positional.size();
  if (count < 1 || count > 3) return interpreter.Fail("range takes 1 to 3 arguments");
  for (size_t i = 0; i < count; ++i) {
    bounds[count == 1 ? 1 : i] = IntArgument(interpreter, arguments, i, "", 0);
  }
  const auto [begin, end, step] = bounds;
  if (step == 0) return interpreter.Fail("range with a step of 0");
  // In 128 bits, where the distance of any two integers fits.
  const __int128 distance = step > 0 ? static_cast<__int128>(end) - begin
                                     : static_cast<__int128>(begin) - end;
  const __int128 stride = step > 0 ? step : -static_cast<__int128>(step);
  const __int128 length = distance > 0 ? (distance + stride - 1) / stride : 0;
  if (length > kRangeMax) {
    return interpreter.Fail(fmt::format("range longer than {} items", kRangeMax));
  }
  Values items;
  for (int64_t i = 0; i < static_cast<int64_t>(length); ++i) {
    items.push_back(Value::Int(begin + i * step));
  }
  return Value::List(std::move(items));
}

Value MakeDict(Interpreter& interpreter, const Arguments& arguments) {
  Dict dict;
  if (!arguments.positional.empty()) {
    const Value& first = arguments.positional[0];
    if (first.is_dict()) {
      dict = first.dict();
    } else {
      for (const Value& pair : interpreter.Iterate(first)) {
        const Values parts = interpreter.Iterate(pair);
        if (interpreter.failed()) return {};
        if (parts.size() != 2 || !Dict::CanBeKey(parts[0])) {
          return interpreter.Fail("dict() needs pairs of a key and a value");
        }
        dict.Set(parts[0], parts[1]);
      }
    }
  }
  for (const auto& [name, value] : arguments.named) dict.Set(name, value);
  return Value::Of(std::move(dict));
}

Value MakeNamespace(Interpreter& interpreter, const Arguments& arguments) {
  return interpreter.NewNamespace(arguments);
}

Value RaiseException(Interpreter& interpreter, const Arguments& arguments) {
  const Value* message = arguments.Get(0, "message");
  return interpreter.Raise(message == nullptr ? "raised an exception"
                                              : interpreter.Str(*message));
}

Value StrftimeNow(Interpreter& interpreter, const Arguments& arguments) {
  constexpr size_t kFormatBytesMax = 256;
  const std::string format = TextArgument(interpreter, arguments, 0, "format", "");
  if (format.size() > kFormatBytesMax) return interpreter.Fail("strftime_now: too long a format");
  return Value::String(absl::FormatTime(format, interpreter.now(), absl::UTCTimeZone()));
}

}  // namespace

Value Interpreter::NewNamespace(const Arguments& arguments) {
  constexpr size_t kNamespacesMax = 10'000;
  if (namespaces_.size() >= kNamespacesMax) return FailLimit("too many namespaces");
  const Value start = MakeDict(*this, arguments);
  if (failed()) return {};
  namespaces_.push_back(std::make_shared<Dict>(start.dict()));
  return Value::Of(namespaces_.back());
}

Function FindFunction(const std::string& name) {
  static constexpr std::pair<std::string_view, Function> kFunctions[] = {
      {"range", Range},
      {"dict", MakeDict},
      {"namespace", MakeNamespace},
      {"raise_exception", RaiseException},
      {"strftime_now", StrftimeNow}};
  for (const auto& [known, function] : kFunctions) {
    if (known == name) return function;
  }
  return nullptr;
}

int64_t IntArgument(Interpreter& interpreter, const Arguments& arguments, size_t place,
                    std::string_view name, int64_t absent) {
  const Value* value = arguments.Get(place, name);
  if (value == nullptr || value->is_none()) return absent;
  if (value->is_integer()) return value->integer();
  interpreter.Fail(fmt::format("argument {} is a {}, expected an integer", place + 1,
                               value->type_name()));
  return absent;
}

bool BoolArgument(const Arguments& arguments, size_t place, std::string_view name, bool absent) {
  const Value* value = arguments.Get(place, name);
  return value == nullptr ? absent : value->Truthy();
}

std::string TextArgument(Interpreter& interpreter, const Arguments& arguments, size_t place,
                         std::string_view name, std::string_view absent) {
  const Value* value = arguments.Get(place, name);
  if (value == nullptr || value->is_none()) return std::string(absent);
  if (value->is_string()) return value->string();
  interpreter.Fail(fmt::format("argument {} is a {}, expected a string", place + 1,
                               value->type_name()));
  return std::string(absent);
}

std::string FormatPercent(Interpreter& interpreter, std::string_view format, const Values& values,
                          const Value* mapping) {
  std::string out;
  size_t next = 0;
  while (!format.empty() && !interpreter.failed()) {
    const size_t percent = format.find('%');
    out += format.substr(0, percent);
    if (percent == std::string_view::npos) break;
    format.remove_prefix(percent + 1);
    if (format.starts_with('%')) {
      out += '%';
      format.remove_prefix(1);
      continue;
    }
    Value value;
    if (mapping != nullptr && format.starts_with('(')) {
      const size_t close = format.find(')');
      const std::string key(format.substr(1, close - 1));
      value = interpreter.Index(*mapping, Value::String(key));
      format.remove_prefix(std::min(close, format.size() - 1) + 1);
    } else if (next < values.size()) {
      value = values[next++];
    } else {
      interpreter.Fail("not enough values for the format");
      break;
    }
    int digits = -1;
    if (format.starts_with('.')) {
      digits = 0;
      format.remove_prefix(1);
      while (!format.empty() && format.front() >= '0' && format.front() <= '9' && digits < 100) {
        digits = digits * 10 + (format.front() - '0');
        format.remove_prefix(1);
      }
    }
    const char type = format.empty() ? '\0' : format.front();
    if (!format.empty()) format.remove_prefix(1);
    if (type == 's') {
      out += interpreter.Str(value);
    } else if (type == 'r') {
      AppendRepr(value, out, interpreter.output_bytes_max());
    } else if ((type == 'd' || type == 'i') && value.is_number()) {
      out += std::to_string(value.is_integer() ? value.integer()
                                               : static_cast<int64_t>(std::clamp(
                                                     value.number(), -9.2e18, 9.2e18)));
    } else if (type == 'f' && value.is_number()) {
      out += fmt::format("{:.{}f}", value.number(), digits < 0 ? 6 : std::min(digits, 100));
    } else if (type == 'x' && value.is_integer()) {
      out += fmt::format("{:x}", value.integer());
    } else {
      interpreter.Fail(fmt::format("a format of a {} that is not supported", value.type_name()));
    }
    if (!interpreter.Room(out.size() / 16)) break;
  }
  if (mapping == nullptr && next < values.size()) interpreter.Fail("too many values for the format");
  return out;
}

}  // namespace penstock::engine::jinja
