// Filters of one value: texts, numbers, defaults, tojson. Those of sequences
// are in template_sequence_filters.cc.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <utility>

#include <fmt/format.h>

#include "backend-engine/text/template_builtins.h"
#include "backend-engine/text/template_json.h"
#include "backend-engine/text/template_text.h"
#include "backend-engine/text/unicode.h"

namespace penstock::engine::jinja {
namespace {

using Kind = Value::Kind;

template <std::string (*kChange)(std::string_view)>
Value ChangeFilter(Interpreter& interpreter, const Value& input, const Arguments&) {
  return Value::String(kChange(interpreter.Str(input)));
}

// Jinja's title: words start after white space, dashes and opening brackets.
std::string TitleWords(std::string_view text) {
  std::string out;
  bool start = true;
  for (const char32_t code : Chars(text)) {
    AppendChar(start ? ToUpper(code) : ToLower(code), out);
    start = IsPythonSpace(code) || std::u32string_view(U"-({[<").find(code) != std::string::npos;
  }
  return out;
}

std::string EscapeHtml(std::string_view text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&': out += "&amp;"; break;
      case '<': out += "&lt;"; break;
      case '>': out += "&gt;"; break;
      case '"': out += "&#34;"; break;
      case '\'': out += "&#39;"; break;
      default: out += c;
    }
  }
  return out;
}

std::string EncodeUrl(std::string_view text) {
  std::string out;
  for (const char c : text) {
    const bool plain = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                       std::string_view("_.-~/").find(c) != std::string_view::npos;
    out += plain ? std::string(1, c) : fmt::format("%{:02X}", static_cast<unsigned char>(c));
  }
  return out;
}

Value DefaultFilter(Interpreter&, const Value& input, const Arguments& arguments) {
  const bool also_falsy = BoolArgument(arguments, 1, "boolean", false);
  if (!input.is_undefined() && !(also_falsy && !input.Truthy())) return input;
  const Value* fallback = arguments.Get(0, "default_value");
  return fallback == nullptr ? Value::String("") : *fallback;
}

Value TrimFilter(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  const std::string text = interpreter.Str(input);
  const Value* chars = arguments.Get(0, "chars");
  if (chars == nullptr || chars->is_none()) return Value::String(std::string(Strip(text, Side::kBoth)));
  const std::string set = TextArgument(interpreter, arguments, 0, "chars", "");
  return Value::String(std::string(Strip(text, Side::kBoth, set)));
}

Value ReplaceFilter(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  const Value* from = arguments.Get(0, "old");
  const Value* to = arguments.Get(1, "new");
  if (from == nullptr || to == nullptr) return interpreter.Fail("replace needs two strings");
  const std::string text = interpreter.Str(input);
  const std::string old_text = interpreter.Str(*from);
  const std::string new_text = interpreter.Str(*to);
  const int64_t limit = IntArgument(interpreter, arguments, 2, "count", -1);
  const size_t grown = CountText(text, old_text) * new_text.size();
  if (!interpreter.Room(text.size() + std::min(grown, size_t{1} << 40))) return {};
  return Value::String(ReplaceText(text, old_text, new_text, limit));
}

Value IndentFilter(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  const Value* width = arguments.Get(0, "width");
  std::string pad;
  if (width != nullptr && width->is_string()) {
    pad = width->string();
  } else {
    const int64_t count = IntArgument(interpreter, arguments, 0, "width", 4);
    if (count > kWidthMax) return interpreter.Fail("indent: too wide");
    pad.assign(static_cast<size_t>(std::max<int64_t>(count, 0)), ' ');
  }
  const bool first = BoolArgument(arguments, 1, "first", false);
  const bool blank = BoolArgument(arguments, 2, "blank", false);
  const std::string text = interpreter.Str(input) + "\n";
  const std::vector<std::string_view> lines = SplitLines(text, false);
  if (!interpreter.Room(text.size() + lines.size() * (pad.size() + 1))) return {};
  std::string out;
  for (size_t i = 0; i < lines.size(); ++i) {
    if (i > 0) out += '\n';
    if (i == 0 ? first : blank || !lines[i].empty()) out += pad;
    out += lines[i];
  }
  return Value::String(std::move(out));
}

Value CenterFilter(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  const int64_t width = IntArgument(interpreter, arguments, 0, "width", 80);
  if (width > kWidthMax) return interpreter.Fail("center: too wide");
  const std::string text = interpreter.Str(input);
  const int64_t space = std::max<int64_t>(0, width - static_cast<int64_t>(CharCount(text)));
  const int64_t left = space / 2 + (space & width & 1);
  return Value::String(std::string(static_cast<size_t>(left), ' ') + text +
                       std::string(static_cast<size_t>(space - left), ' '));
}

Value TruncateFilter(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  const int64_t length = IntArgument(interpreter, arguments, 0, "length", 255);
  const bool cut_words = BoolArgument(arguments, 1, "killwords", false);
  const std::string end = TextArgument(interpreter, arguments, 2, "end", "...");
  const int64_t leeway = IntArgument(interpreter, arguments, 3, "leeway", 5);
  const std::u32string text = Chars(interpreter.Str(input));
  const auto end_length = static_cast<int64_t>(CharCount(end));
  if (length < end_length || leeway < 0) return interpreter.Fail("truncate: too short");
  if (static_cast<int64_t>(text.size()) - leeway <= length) return Value::String(FromChars(text));
  std::u32string kept = text.substr(0, static_cast<size_t>(length - end_length));
  if (!cut_words) kept = kept.substr(0, kept.rfind(U' '));
  return Value::String(FromChars(kept) + end);
}

Value WordCountFilter(Interpreter& interpreter, const Value& input, const Arguments&) {
  int64_t count = 0;
  bool in_word = false;
  for (const char32_t code : Chars(interpreter.Str(input))) {
    count += IsWord(code) && !in_word;
    in_word = IsWord(code);
  }
  return Value::Int(count);
}

Value FormatFilter(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  Dict named;
  for (const auto& [name, value] : arguments.named) named.Set(name, value);
  const Value mapping = Value::Of(std::move(named));
  const std::string format = interpreter.Str(input);
  return Value::String(FormatPercent(interpreter, format, arguments.positional,
                                     arguments.named.empty() ? nullptr : &mapping));
}

Value StringFilter(Interpreter& interpreter, const Value& input, const Arguments&) {
  return input.is_string() ? input : Value::String(interpreter.Str(input));
}

// The number that all of `text` spells, white space around it aside.
std::optional<double> NumberOf(std::string_view text) {
  text = Strip(text, Side::kBoth);
  if (text.starts_with('+')) text.remove_prefix(1);
  double value = 0;
  const auto result = std::from_chars(text.data(), text.data() + text.size(), value);
  if (result.ec != std::errc() || result.ptr != text.data() + text.size()) return std::nullopt;
  return value;
}

Value IntFilter(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  const int64_t fallback = IntArgument(interpreter, arguments, 0, "default", 0);
  const int64_t base = IntArgument(interpreter, arguments, 1, "base", 10);
  if (input.is_undefined()) return interpreter.Fail(input.undefined_why());
  if (input.is_integer()) return Value::Int(input.integer());
  std::optional<double> number;
  if (input.is_string() && base >= 2 && base <= 36) {
    std::string_view text = Strip(input.string(), Side::kBoth);
    if (text.starts_with('+')) text.remove_prefix(1);
    if (base == 16 && (text.starts_with("0x") || text.starts_with("0X"))) text.remove_prefix(2);
    int64_t whole = 0;
    const auto result = std::from_chars(text.data(), text.data() + text.size(), whole,
                                        static_cast<int>(base));
    if (result.ec == std::errc() && result.ptr == text.data() + text.size()) {
      return Value::Int(whole);
    }
    number = NumberOf(text);
  } else if (input.Is(Kind::kFloat)) {
    number = input.number();
  }
  if (!number.has_value() || !(std::abs(*number) < 9.2e18)) return Value::Int(fallback);
  return Value::Int(static_cast<int64_t>(*number));
}

Value FloatFilter(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  if (input.is_undefined()) return interpreter.Fail(input.undefined_why());
  if (input.is_number()) return Value::Float(input.number());
  if (input.is_string()) {
    if (const std::optional<double> number = NumberOf(input.string())) return Value::Float(*number);
  }
  const Value* fallback = arguments.Get(0, "default");
  return fallback == nullptr ? Value::Float(0) : *fallback;
}

Value AbsFilter(Interpreter& interpreter, const Value& input, const Arguments&) {
  if (!input.is_number()) return interpreter.Fail("abs needs a number");
  if (input.is_integer()) {
    return input.integer() < 0 ? interpreter.Binary(Operator::kSubtract, Value::Int(0), input)
                               : Value::Int(input.integer());
  }
  return Value::Float(std::abs(input.number()));
}

Value RoundFilter(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  const int64_t digits = IntArgument(interpreter, arguments, 0, "precision", 0);
  const std::string method = TextArgument(interpreter, arguments, 1, "method", "common");
  if (!input.is_number() || digits < 0 || digits > 100) {
    return interpreter.Fail("round needs a number and 0 to 100 digits");
  }
  if (method == "common") {
    if (input.is_integer()) return Value::Int(input.integer());
    const std::string text = fmt::format("{:.{}f}", input.number(), digits);
    return Value::Float(NumberOf(text).value_or(input.number()));
  }
  const double scale = std::pow(10.0, static_cast<double>(digits));
  if (method == "ceil") return Value::Float(std::ceil(input.number() * scale) / scale);
  if (method == "floor") return Value::Float(std::floor(input.number() * scale) / scale);
  return interpreter.Fail("round: method is common, ceil or floor");
}

Value AttrFilter(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  const std::string name = TextArgument(interpreter, arguments, 0, "name", "");
  // Attributes only: the items of a dictionary are none.
  if (input.is_dict() && FindMethod(input, name) == nullptr) {
    return Value::Undefined(fmt::format("'dict object' has no attribute '{}'", name));
  }
  return interpreter.Attribute(input, name);
}

Value SafeFilter(Interpreter&, const Value& input, const Arguments&) { return input; }

Value ToJsonFilter(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  // Hugging Face: tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False).
  JsonStyle style;
  const int64_t indent = IntArgument(interpreter, arguments, 1, "indent", -1);
  if (indent > 64) return interpreter.Fail("tojson: indent above 64");
  style.indent = static_cast<int>(std::max<int64_t>(indent, -1));
  if (style.indent >= 0) style.item_separator = ",";
  style.sort_keys = BoolArgument(arguments, 3, "sort_keys", false);
  if (BoolArgument(arguments, 0, "ensure_ascii", false)) {
    return interpreter.Fail("tojson: ensure_ascii is not supported");
  }
  const Value* separators = arguments.Get(2, "separators");
  if (separators != nullptr && !separators->is_none()) {
    const Values parts = interpreter.Iterate(*separators);
    if (parts.size() != 2 || !parts[0].is_string() || !parts[1].is_string()) {
      return interpreter.Fail("tojson: separators are two strings");
    }
    style.item_separator = parts[0].string();
    style.key_separator = parts[1].string();
  }
  std::string out;
  const std::string bad = AppendJson(input, style, interpreter.output_bytes_max(), out);
  if (!bad.empty()) return interpreter.Fail(fmt::format("tojson: a {} is no JSON", bad));
  return Value::String(std::move(out));
}

}  // namespace

Filter FindFilter(const std::string& name) {
  static constexpr std::pair<std::string_view, Filter> kFilters[] = {
      {"upper", ChangeFilter<UpperText>},
      {"lower", ChangeFilter<LowerText>},
      {"capitalize", ChangeFilter<CapitalizeText>},
      {"title", ChangeFilter<TitleWords>},
      {"escape", ChangeFilter<EscapeHtml>},
      {"e", ChangeFilter<EscapeHtml>},
      {"urlencode", ChangeFilter<EncodeUrl>},
      {"default", DefaultFilter},
      {"d", DefaultFilter},
      {"trim", TrimFilter},
      {"replace", ReplaceFilter},
      {"indent", IndentFilter},
      {"center", CenterFilter},
      {"truncate", TruncateFilter},
      {"wordcount", WordCountFilter},
      {"format", FormatFilter},
      {"string", StringFilter},
      {"int", IntFilter},
      {"float", FloatFilter},
      {"abs", AbsFilter},
      {"round", RoundFilter},
      {"attr", AttrFilter},
      {"safe", SafeFilter},
      {"tojson", ToJsonFilter}};
  for (const auto& [known, filter] : kFilters) {
    if (known == name) return filter;
  }
  return FindSequenceFilter(name);
}

}  // namespace penstock::engine::jinja
