#include <algorithm>
#include <charconv>
#include <utility>

#include <fmt/format.h>

#include "backend-engine/text/template_builtins.h"
#include "backend-engine/text/template_text.h"

namespace penstock::engine::jinja {
namespace {

// A value by a path such as "function.name" or "0.id".
Value ByPath(Interpreter& interpreter, Value value, const Value& path) {
  if (path.is_integer()) return interpreter.Index(value, path);
  if (!path.is_string()) return interpreter.Fail("an attribute is a name or a number");
  for (const std::string_view part : Split(path.string(), ".", -1, false)) {
    int64_t number = 0;
    const auto result = std::from_chars(part.data(), part.data() + part.size(), number);
    const bool numeric = result.ec == std::errc() && result.ptr == part.data() + part.size();
    value = interpreter.Index(value, numeric ? Value::Int(number)
                                             : Value::String(std::string(part)));
  }
  return value;
}

// By the attribute given as `name`, where it is given.
Value KeyOf(Interpreter& interpreter, const Value& item, const Value* path, bool fold_case) {
  Value key = path == nullptr || path->is_none() ? item : ByPath(interpreter, item, *path);
  return fold_case && key.is_string() ? Value::String(LowerText(key.string())) : key;
}

// Sorts by keys. After a failure every comparison says "equal", which ends the
// sort soon and in bounds.
void SortBy(Interpreter& interpreter, std::vector<std::pair<Value, Value>>& entries, bool reverse) {
  std::stable_sort(entries.begin(), entries.end(), [&](const auto& a, const auto& b) {
    if (interpreter.failed()) return false;
    return reverse ? interpreter.Compare(b.first, a.first) < 0
                   : interpreter.Compare(a.first, b.first) < 0;
  });
}

Value LengthFilter(Interpreter& interpreter, const Value& input, const Arguments&) {
  if (input.is_string()) return Value::Int(static_cast<int64_t>(CharCount(input.string())));
  if (input.is_list() || input.is_dict() || input.is_undefined()) {
    return Value::Int(static_cast<int64_t>(input.size()));
  }
  return interpreter.Fail(fmt::format("a {} has no length", input.type_name()));
}

Value ItemsFilter(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  if (input.is_undefined()) return Value::List({});
  if (!input.is_dict()) return interpreter.Fail("items needs a mapping");
  return FindMethod(input, "items")(interpreter, input, arguments);
}

Value ListFilter(Interpreter& interpreter, const Value& input, const Arguments&) {
  return Value::List(interpreter.Iterate(input));
}

Value FirstFilter(Interpreter& interpreter, const Value& input, const Arguments&) {
  const Values items = interpreter.Iterate(input);
  return items.empty() ? Value::Undefined("no first item, the sequence is empty") : items.front();
}

Value LastFilter(Interpreter& interpreter, const Value& input, const Arguments&) {
  const Values items = interpreter.Iterate(input);
  return items.empty() ? Value::Undefined("no last item, the sequence is empty") : items.back();
}

Value JoinFilter(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  const Value* separator_value = arguments.Get(0, "d");
  const std::string separator =
      separator_value == nullptr ? std::string() : interpreter.Str(*separator_value);
  const Value* path = arguments.Get(1, "attribute");
  std::string out;
  bool first = true;
  for (const Value& item : interpreter.Iterate(input)) {
    const std::string text = interpreter.Str(KeyOf(interpreter, item, path, false));
    if (!interpreter.Room(text.size() + separator.size())) return {};
    if (!std::exchange(first, false)) out += separator;
    out += text;
  }
  return Value::String(std::move(out));
}

Value ReverseFilter(Interpreter& interpreter, const Value& input, const Arguments&) {
  if (input.is_string()) {
    std::u32string chars = Chars(input.string());
    std::reverse(chars.begin(), chars.end());
    return Value::String(FromChars(chars));
  }
  Values items = interpreter.Iterate(input);
  std::reverse(items.begin(), items.end());
  return Value::List(std::move(items));
}

Value SortFilter(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  const bool reverse = BoolArgument(arguments, 0, "reverse", false);
  const bool fold_case = !BoolArgument(arguments, 1, "case_sensitive", false);
  const Value* path = arguments.Get(2, "attribute");
  std::vector<std::pair<Value, Value>> entries;
  for (Value& item : interpreter.Iterate(input)) {
    Value key = KeyOf(interpreter, item, path, fold_case);
    entries.emplace_back(std::move(key), std::move(item));
  }
  SortBy(interpreter, entries, reverse);
  Values out;
  for (auto& [key, item] : entries) out.push_back(std::move(item));
  return Value::List(std::move(out));
}

Value DictSortFilter(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  if (!input.is_dict()) return interpreter.Fail("dictsort needs a mapping");
  const bool fold_case = !BoolArgument(arguments, 0, "case_sensitive", false);
  const std::string by = TextArgument(interpreter, arguments, 1, "by", "key");
  const bool reverse = BoolArgument(arguments, 2, "reverse", false);
  if (by != "key" && by != "value") return interpreter.Fail("dictsort: by is key or value");
  std::vector<std::pair<Value, Value>> entries;
  for (const auto& [key, value] : input.dict().items()) {
    entries.emplace_back(KeyOf(interpreter, by == "key" ? key : value, nullptr, fold_case),
                         Value::Tuple({key, value}));
  }
  SortBy(interpreter, entries, reverse);
  Values out;
  for (auto& [key, item] : entries) out.push_back(std::move(item));
  return Value::List(std::move(out));
}

Value UniqueFilter(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  const bool fold_case = !BoolArgument(arguments, 0, "case_sensitive", false);
  const Value* path = arguments.Get(1, "attribute");
  Dict seen;           // Keys that hash.
  Values seen_others;
  Values out;
  for (const Value& item : interpreter.Iterate(input)) {
    const Value key = KeyOf(interpreter, item, path, fold_case);
    if (interpreter.failed()) return {};
    if (Dict::CanBeKey(key)) {
      if (seen.Find(key) != nullptr) continue;
      seen.Set(key, Value::None());
    } else {
      const bool known = std::any_of(seen_others.begin(), seen_others.end(), [&](const Value& other) {
        return interpreter.Equal(other, key);
      });
      if (known) continue;
      seen_others.push_back(key);
    }
    out.push_back(item);
  }
  return Value::List(std::move(out));
}

template <bool kMax>
Value ExtremeFilter(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  const bool fold_case = !BoolArgument(arguments, 0, "case_sensitive", false);
  const Value* path = arguments.Get(1, "attribute");
  Value best = Value::Undefined("no item, the sequence is empty");
  Value best_key;
  bool first = true;
  for (const Value& item : interpreter.Iterate(input)) {
    Value key = KeyOf(interpreter, item, path, fold_case);
    if (interpreter.failed()) return {};
    const int order = first ? 0 : interpreter.Compare(key, best_key);
    if (std::exchange(first, false) || (kMax ? order > 0 : order < 0)) {
      best = item;
      best_key = std::move(key);
    }
  }
  return best;
}

Value SumFilter(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  const Value* path = arguments.Get(0, "attribute");
  const Value* start = arguments.Get(1, "start");
  Value total = start == nullptr ? Value::Int(0) : *start;
  for (const Value& item : interpreter.Iterate(input)) {
    total = interpreter.Binary(Operator::kAdd, total, KeyOf(interpreter, item, path, false));
  }
  return total;
}

// select, reject, selectattr, rejectattr.
template <bool kKeep, bool kByAttribute>
Value SelectFilter(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  Arguments rest = arguments;
  Value path;
  if (kByAttribute) {
    if (rest.positional.empty()) return interpreter.Fail("selectattr needs an attribute");
    path = rest.positional[0];
    rest.positional.erase(rest.positional.begin());
  }
  Test test = nullptr;
  if (!rest.positional.empty()) {
    if (!rest.positional[0].is_string()) return interpreter.Fail("the name of a test is a string");
    test = FindTest(rest.positional[0].string());
    if (test == nullptr) {
      return interpreter.Fail(fmt::format("no test named '{}'", rest.positional[0].string()));
    }
    rest.positional.erase(rest.positional.begin());
  }
  Values out;
  for (Value& item : interpreter.Iterate(input)) {
    const Value value = kByAttribute ? ByPath(interpreter, item, path) : item;
    if (interpreter.failed()) return {};
    const bool holds = test == nullptr ? value.Truthy() : test(interpreter, value, rest);
    if (holds == kKeep) out.push_back(std::move(item));
  }
  return Value::List(std::move(out));
}

Value MapFilter(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  Values out;
  if (arguments.positional.empty()) {
    const Value* path = arguments.Get(0, "attribute");
    const Value* fallback = arguments.Get(SIZE_MAX, "default");
    if (path == nullptr) return interpreter.Fail("map needs a filter or an attribute");
    for (const Value& item : interpreter.Iterate(input)) {
      Value value = ByPath(interpreter, item, *path);
      out.push_back(value.is_undefined() && fallback != nullptr ? *fallback : std::move(value));
    }
    return Value::List(std::move(out));
  }
  const Value& name = arguments.positional[0];
  const Filter filter = name.is_string() ? FindFilter(name.string()) : nullptr;
  if (filter == nullptr) return interpreter.Fail("map: no such filter");
  Arguments rest = arguments;
  rest.positional.erase(rest.positional.begin());
  for (const Value& item : interpreter.Iterate(input)) {
    if (!interpreter.Spend(1 + item.size() / 64)) return {};
    out.push_back(filter(interpreter, item, rest));
    if (!interpreter.Room(out.back().size())) return {};
  }
  return Value::List(std::move(out));
}

Value GroupByFilter(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  const Value* path = arguments.Get(0, "attribute");
  if (path == nullptr) return interpreter.Fail("groupby needs an attribute");
  const bool fold_case = !BoolArgument(arguments, 2, "case_sensitive", false);
  std::vector<std::pair<Value, Value>> entries;
  for (Value& item : interpreter.Iterate(input)) {
    Value key = KeyOf(interpreter, item, path, fold_case);
    entries.emplace_back(std::move(key), std::move(item));
  }
  SortBy(interpreter, entries, false);
  Values groups;
  for (size_t i = 0; i < entries.size() && !interpreter.failed();) {
    Values members;
    size_t end = i;
    while (end < entries.size() && interpreter.Equal(entries[end].first, entries[i].first)) {
      members.push_back(entries[end++].second);
    }
    const Value shown = KeyOf(interpreter, members.empty() ? Value() : members[0], path, false);
    groups.push_back(Value::Tuple({shown, Value::List(std::move(members))}));
    i = std::max(end, i + 1);
  }
  return Value::List(std::move(groups));
}

Value BatchFilter(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  const int64_t count = IntArgument(interpreter, arguments, 0, "linecount", 0);
  const Value* fill = arguments.Get(1, "fill_with");
  if (count < 1 || count > kWidthMax) return interpreter.Fail("batch: a bad size");
  const auto size = static_cast<size_t>(count);
  Values out;
  Values line;
  for (Value& item : interpreter.Iterate(input)) {
    if (line.size() == size) out.push_back(Value::List(std::exchange(line, {})));
    line.push_back(std::move(item));
  }
  while (fill != nullptr && !fill->is_none() && !line.empty() && line.size() < size) {
    line.push_back(*fill);
  }
  if (!line.empty()) out.push_back(Value::List(std::move(line)));
  return Value::List(std::move(out));
}

}  // namespace

Filter FindSequenceFilter(const std::string& name) {
  static constexpr std::pair<std::string_view, Filter> kFilters[] = {
      {"length", LengthFilter},
      {"count", LengthFilter},
      {"items", ItemsFilter},
      {"list", ListFilter},
      {"first", FirstFilter},
      {"last", LastFilter},
      {"join", JoinFilter},
      {"reverse", ReverseFilter},
      {"sort", SortFilter},
      {"dictsort", DictSortFilter},
      {"unique", UniqueFilter},
      {"min", ExtremeFilter<false>},
      {"max", ExtremeFilter<true>},
      {"sum", SumFilter},
      {"select", SelectFilter<true, false>},
      {"reject", SelectFilter<false, false>},
      {"selectattr", SelectFilter<true, true>},
      {"rejectattr", SelectFilter<false, true>},
      {"map", MapFilter},
      {"groupby", GroupByFilter},
      {"batch", BatchFilter}};
  for (const auto& [known, filter] : kFilters) {
    if (known == name) return filter;
  }
  return nullptr;
}

}  // namespace penstock::engine::jinja
