// Methods of strings, dictionaries, lists and of `loop`. What would change a
// value is refused, as Hugging Face's sandbox refuses it.
#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "backend-engine/text/template_builtins.h"
#include "backend-engine/text/template_text.h"
#include "backend-engine/text/unicode.h"

namespace penstock::engine::jinja {
namespace {

using Kind = Value::Kind;

template <Side kSide>
Value StripMethod(Interpreter& interpreter, const Value& self, const Arguments& arguments) {
  const Value* chars = arguments.Get(0, "chars");
  if (chars == nullptr || chars->is_none()) {
    return Value::String(std::string(Strip(self.string(), kSide)));
  }
  const std::string set = TextArgument(interpreter, arguments, 0, "chars", "");
  if (!interpreter.Spend(self.size() * std::min<size_t>(set.size(), 1000) / 64)) return {};
  return Value::String(std::string(Strip(self.string(), kSide, set)));
}

Values Strings(const std::vector<std::string_view>& parts) {
  Values out;
  out.reserve(parts.size());
  for (const std::string_view part : parts) out.push_back(Value::String(std::string(part)));
  return out;
}

template <bool kFromRight>
Value SplitMethod(Interpreter& interpreter, const Value& self, const Arguments& arguments) {
  const std::string separator = TextArgument(interpreter, arguments, 0, "sep", "");
  const int64_t limit = IntArgument(interpreter, arguments, 1, "maxsplit", -1);
  const Value* given = arguments.Get(0, "sep");
  if (given != nullptr && given->is_string() && separator.empty()) {
    return interpreter.Fail("split with an empty separator");
  }
  if (!interpreter.Room(self.size() * 16)) return {};
  return Value::List(Strings(Split(self.string(), separator, limit, kFromRight)));
}

Value SplitLinesMethod(Interpreter& interpreter, const Value& self, const Arguments& arguments) {
  if (!interpreter.Room(self.size() * 16)) return {};
  return Value::List(Strings(SplitLines(self.string(), BoolArgument(arguments, 0, "keepends",
                                                                    false))));
}

template <bool kFromRight>
Value PartitionMethod(Interpreter& interpreter, const Value& self, const Arguments& arguments) {
  const std::string separator = TextArgument(interpreter, arguments, 0, "sep", "");
  if (separator.empty()) return interpreter.Fail("partition needs a separator");
  const std::string& text = self.string();
  const size_t at = kFromRight ? text.rfind(separator) : FindText(text, separator);
  std::vector<std::string_view> parts = {text, "", ""};
  if (at == std::string::npos && kFromRight) parts = {"", "", text};
  if (at != std::string::npos) {
    const std::string_view view = text;
    parts = {view.substr(0, at), separator, view.substr(at + separator.size())};
  }
  return Value::Tuple(Strings(parts));
}

template <bool kAtEnd>
Value StartsMethod(Interpreter& interpreter, const Value& self, const Arguments& arguments) {
  const Value* what = arguments.Get(0, "prefix");
  if (what == nullptr) return interpreter.Fail("startswith and endswith need an argument");
  const Values options = what->Is(Kind::kTuple) ? what->items() : Values{*what};
  for (const Value& option : options) {
    if (!option.is_string()) return interpreter.Fail("startswith and endswith need strings");
    const bool matches = kAtEnd ? self.string().ends_with(option.string())
                                : self.string().starts_with(option.string());
    if (matches) return Value::Bool(true);
  }
  return Value::Bool(false);
}

template <std::string (*kChange)(std::string_view)>
Value ChangeMethod(Interpreter&, const Value& self, const Arguments&) {
  return Value::String(kChange(self.string()));
}

Value ReplaceMethod(Interpreter& interpreter, const Value& self, const Arguments& arguments) {
  const std::string from = TextArgument(interpreter, arguments, 0, "old", "");
  const std::string to = TextArgument(interpreter, arguments, 1, "new", "");
  const int64_t limit = IntArgument(interpreter, arguments, 2, "count", -1);
  if (arguments.positional.size() < 2) return interpreter.Fail("replace needs two strings");
  const size_t times = CountText(self.string(), from);
  if (!interpreter.Room(self.size() + std::min(times * to.size(), size_t{1} << 40))) return {};
  return Value::String(ReplaceText(self.string(), from, to, limit));
}

template <bool kFromRight, bool kMustFind>
Value FindMethodOfString(Interpreter& interpreter, const Value& self, const Arguments& arguments) {
  const std::string part = TextArgument(interpreter, arguments, 0, "sub", "");
  const std::string& text = self.string();
  const size_t at = kFromRight ? text.rfind(part) : FindText(text, part);
  if (at == std::string::npos) {
    return kMustFind ? interpreter.Fail("substring not found") : Value::Int(-1);
  }
  return Value::Int(static_cast<int64_t>(CharCount(std::string_view(text).substr(0, at))));
}

Value CountMethod(Interpreter& interpreter, const Value& self, const Arguments& arguments) {
  const std::string part = TextArgument(interpreter, arguments, 0, "sub", "");
  return Value::Int(static_cast<int64_t>(CountText(self.string(), part)));
}

Value JoinMethod(Interpreter& interpreter, const Value& self, const Arguments& arguments) {
  const Value* items = arguments.Get(0, "iterable");
  if (items == nullptr) return interpreter.Fail("join needs a list");
  std::string out;
  bool first = true;
  for (const Value& item : interpreter.Iterate(*items)) {
    if (!item.is_string()) return interpreter.Fail("join needs strings");
    if (!interpreter.Room(item.size() + self.size())) return {};
    if (!std::exchange(first, false)) out += self.string();
    out += item.string();
  }
  return Value::String(std::move(out));
}

template <bool (*kIs)(char32_t)>
Value AllMethod(Interpreter&, const Value& self, const Arguments&) {
  const std::u32string chars = Chars(self.string());
  return Value::Bool(!chars.empty() && std::all_of(chars.begin(), chars.end(), kIs));
}

bool IsLetterOrNumber(char32_t code) { return IsLetter(code) || IsNumber(code); }

template <bool kUpper>
Value CaseMethod(Interpreter&, const Value& self, const Arguments&) {
  const std::string& text = self.string();
  const std::string same = kUpper ? UpperText(text) : LowerText(text);
  const std::string other = kUpper ? LowerText(text) : UpperText(text);
  return Value::Bool(same == text && other != text);
}

template <bool kSuffix>
Value RemoveMethod(Interpreter& interpreter, const Value& self, const Arguments& arguments) {
  const std::string part = TextArgument(interpreter, arguments, 0, "", "");
  std::string_view text = self.string();
  if (kSuffix && text.ends_with(part)) text.remove_suffix(part.size());
  if (!kSuffix && text.starts_with(part)) text.remove_prefix(part.size());
  return Value::String(std::string(text));
}

// Pads to a width in characters: 'l' at the left, 'r' at the right, 'z' zeros.
template <char kWhere>
Value PadMethod(Interpreter& interpreter, const Value& self, const Arguments& arguments) {
  const int64_t width = IntArgument(interpreter, arguments, 0, "width", 0);
  const std::string fill = TextArgument(interpreter, arguments, 1, "fillchar", " ");
  if (width > kWidthMax || CharCount(fill) != 1) return interpreter.Fail("a bad width or fill");
  const auto count = static_cast<int64_t>(CharCount(self.string()));
  std::string pad;
  for (int64_t i = count; i < width; ++i) pad += kWhere == 'z' ? "0" : fill;
  const std::string& text = self.string();
  if (kWhere == 'r') return Value::String(text + pad);
  const bool sign = kWhere == 'z' && (text.starts_with('-') || text.starts_with('+'));
  return Value::String(text.substr(0, sign) + pad + text.substr(sign));
}

// "{} {0} {name}".format(...); no format specifications.
Value FormatMethod(Interpreter& interpreter, const Value& self, const Arguments& arguments) {
  std::string out;
  size_t next = 0;
  std::string_view rest = self.string();
  while (!rest.empty() && !interpreter.failed()) {
    const size_t at = rest.find_first_of("{}");
    out += rest.substr(0, at);
    if (at == std::string_view::npos) break;
    rest.remove_prefix(at);
    if (rest.starts_with("{{") || rest.starts_with("}}")) {
      out += rest.front();
      rest.remove_prefix(2);
      continue;
    }
    const size_t close = rest.find('}');
    if (rest.front() == '}' || close == std::string_view::npos) {
      return interpreter.Fail("a single brace in a format");
    }
    const std::string field(rest.substr(1, close - 1));
    rest.remove_prefix(close + 1);
    const bool numeric = !field.empty() && field.size() < 4 &&
                         std::all_of(field.begin(), field.end(),
                                     [](char c) { return c >= '0' && c <= '9'; });
    const bool named = !field.empty() && !numeric;
    const size_t place = named ? SIZE_MAX : numeric ? std::stoul(field) : next++;
    const Value* value = arguments.Get(place, named ? field : "");
    if (value == nullptr) return interpreter.Fail("no value for a field of a format");
    out += interpreter.Str(*value);
  }
  return Value::String(std::move(out));
}

// --- dictionaries and lists --------------------------------------------------

Value ItemsMethod(Interpreter& interpreter, const Value& self, const Arguments&) {
  if (!interpreter.Spend(self.size())) return {};
  Values out;
  for (const auto& [key, value] : self.dict().items()) out.push_back(Value::Tuple({key, value}));
  return Value::List(std::move(out));
}

Value KeysMethod(Interpreter& interpreter, const Value& self, const Arguments&) {
  return Value::List(interpreter.Iterate(self));
}

Value ValuesMethod(Interpreter& interpreter, const Value& self, const Arguments&) {
  if (!interpreter.Spend(self.size())) return {};
  Values out;
  for (const auto& [key, value] : self.dict().items()) out.push_back(value);
  return Value::List(std::move(out));
}

Value GetMethod(Interpreter& interpreter, const Value& self, const Arguments& arguments) {
  const Value* key = arguments.Get(0, "key");
  if (key == nullptr) return interpreter.Fail("get needs a key");
  if (const Value* found = self.dict().Find(*key)) return *found;
  const Value* absent = arguments.Get(1, "default");
  return absent == nullptr ? Value::None() : *absent;
}

Value CopyMethod(Interpreter&, const Value& self, const Arguments&) { return self; }

Value IndexOfMethod(Interpreter& interpreter, const Value& self, const Arguments& arguments) {
  const Value* what = arguments.Get(0, "value");
  for (size_t i = 0; what != nullptr && i < self.size(); ++i) {
    if (interpreter.Equal(self.items()[i], *what)) return Value::Int(static_cast<int64_t>(i));
  }
  return interpreter.Fail("value is not in the list");
}

Value CountInMethod(Interpreter& interpreter, const Value& self, const Arguments& arguments) {
  const Value* what = arguments.Get(0, "value");
  int64_t count = 0;
  for (const Value& item : self.items()) {
    count += what != nullptr && interpreter.Equal(item, *what);
  }
  return Value::Int(count);
}

Value RefuseMethod(Interpreter& interpreter, const Value& self, const Arguments&) {
  return interpreter.Fail(
      fmt::format("a {} cannot be changed by a template; build a new one", self.type_name()));
}

Value CycleMethod(Interpreter& interpreter, const Value& self, const Arguments& arguments) {
  if (arguments.positional.empty()) return interpreter.Fail("loop.cycle needs values");
  return arguments.positional[self.loop().index % arguments.positional.size()];
}

Value ChangedMethod(Interpreter& interpreter, const Value& self, const Arguments& arguments) {
  Loop& loop = self.loop();
  bool same = loop.changed.has_value() && loop.changed->size() == arguments.positional.size();
  for (size_t i = 0; same && i < arguments.positional.size(); ++i) {
    same = interpreter.Equal((*loop.changed)[i], arguments.positional[i]);
  }
  if (!same) loop.changed = arguments.positional;
  return Value::Bool(!same);
}

struct Entry {
  std::string_view name;
  Method method;
};

constexpr Entry kStringMethods[] = {
    {"strip", StripMethod<Side::kBoth>},  {"lstrip", StripMethod<Side::kLeft>},
    {"rstrip", StripMethod<Side::kRight>}, {"split", SplitMethod<false>},
    {"rsplit", SplitMethod<true>},        {"splitlines", SplitLinesMethod},
    {"partition", PartitionMethod<false>}, {"rpartition", PartitionMethod<true>},
    {"startswith", StartsMethod<false>},  {"endswith", StartsMethod<true>},
    {"upper", ChangeMethod<UpperText>},   {"lower", ChangeMethod<LowerText>},
    {"casefold", ChangeMethod<LowerText>}, {"title", ChangeMethod<TitleText>},
    {"capitalize", ChangeMethod<CapitalizeText>}, {"swapcase", ChangeMethod<SwapCaseText>},
    {"replace", ReplaceMethod},           {"find", FindMethodOfString<false, false>},
    {"rfind", FindMethodOfString<true, false>}, {"index", FindMethodOfString<false, true>},
    {"rindex", FindMethodOfString<true, true>}, {"count", CountMethod},
    {"join", JoinMethod},                 {"isdigit", AllMethod<IsDigit>},
    {"isdecimal", AllMethod<IsDigit>},    {"isnumeric", AllMethod<IsNumber>},
    {"isalpha", AllMethod<IsLetter>},     {"isalnum", AllMethod<IsLetterOrNumber>},
    {"isspace", AllMethod<IsPythonSpace>}, {"isupper", CaseMethod<true>},
    {"islower", CaseMethod<false>},       {"removeprefix", RemoveMethod<false>},
    {"removesuffix", RemoveMethod<true>}, {"ljust", PadMethod<'r'>},
    {"rjust", PadMethod<'l'>},            {"zfill", PadMethod<'z'>},
    {"format", FormatMethod}};

constexpr Entry kDictMethods[] = {
    {"items", ItemsMethod}, {"keys", KeysMethod}, {"values", ValuesMethod},
    {"get", GetMethod},     {"copy", CopyMethod}, {"update", RefuseMethod},
    {"pop", RefuseMethod},  {"clear", RefuseMethod}, {"popitem", RefuseMethod},
    {"setdefault", RefuseMethod}};

constexpr Entry kListMethods[] = {
    {"index", IndexOfMethod}, {"count", CountInMethod}, {"copy", CopyMethod},
    {"append", RefuseMethod}, {"extend", RefuseMethod}, {"insert", RefuseMethod},
    {"pop", RefuseMethod},    {"remove", RefuseMethod}, {"clear", RefuseMethod},
    {"sort", RefuseMethod},   {"reverse", RefuseMethod}};

constexpr Entry kLoopMethods[] = {{"cycle", CycleMethod}, {"changed", ChangedMethod}};

template <size_t kCount>
Method Find(const Entry (&entries)[kCount], std::string_view name) {
  for (const Entry& entry : entries) {
    if (entry.name == name) return entry.method;
  }
  return nullptr;
}

}  // namespace

Method FindMethod(const Value& self, const std::string& name) {
  switch (self.kind()) {
    case Kind::kString:
      return Find(kStringMethods, name);
    case Kind::kDict:
      return Find(kDictMethods, name);
    case Kind::kList:
    case Kind::kTuple:
      return Find(kListMethods, name);
    case Kind::kLoop:
      return Find(kLoopMethods, name);
    default:
      return nullptr;
  }
}

}  // namespace penstock::engine::jinja
