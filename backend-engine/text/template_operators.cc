// What operators, indexes and comparisons mean: Python's rules.
#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "backend-engine/text/template_builtins.h"
#include "backend-engine/text/template_interpreter.h"
#include "backend-engine/text/template_text.h"

namespace penstock::engine::jinja {

std::string Interpreter::Str(const Value& value) {
  std::string out;
  AppendStr(value, out, limits_.output_bytes);
  Room(out.size());
  Spend(out.size() / 64);
  return out;
}

Values Interpreter::Iterate(const Value& value) {
  if (failed() || !Spend(value.size() / 4)) return {};
  switch (value.kind()) {
    case Value::Kind::kUndefined:
      return {};
    case Value::Kind::kList:
    case Value::Kind::kTuple:
      Room(value.size() * 48);
      return value.items();
    case Value::Kind::kDict: {
      Values keys;
      for (const auto& [key, item] : value.dict().items()) keys.push_back(key);
      return keys;
    }
    case Value::Kind::kString: {
      if (!Room(value.size() * 96)) return {};
      Values chars;
      for (const char32_t code : Chars(value.string())) {
        chars.push_back(Value::String(FromChars(std::u32string_view(&code, 1))));
      }
      return chars;
    }
    default:
      Fail(fmt::format("a {} cannot be iterated", value.type_name()));
      return {};
  }
}

bool Interpreter::Equal(const Value& a, const Value& b) {
  if (!Spend(1)) return false;
  if (a.is_number() && b.is_number()) {
    return a.is_integer() && b.is_integer() ? a.integer() == b.integer()
                                            : a.number() == b.number();
  }
  if (a.kind() != b.kind() || a.size() != b.size()) return false;
  if (a.Same(b)) return true;
  if (a.is_string()) return Spend(a.size() / 64) && a.string() == b.string();
  if (a.is_list()) {
    for (size_t i = 0; i < a.size(); ++i) {
      if (!Equal(a.items()[i], b.items()[i])) return false;
    }
    return true;
  }
  if (a.is_dict()) {
    for (const auto& [key, value] : a.dict().items()) {
      const Value* other = b.dict().Find(key);
      if (other == nullptr || !Equal(value, *other)) return false;
    }
    return true;
  }
  return false;
}

int Interpreter::Compare(const Value& a, const Value& b) {
  if (!Spend(1)) return 0;
  const auto sign = [](auto x, auto y) { return x < y ? -1 : x > y ? 1 : 0; };
  if (a.is_integer() && b.is_integer()) return sign(a.integer(), b.integer());
  if (a.is_number() && b.is_number()) return sign(a.number(), b.number());
  if (a.is_string() && b.is_string()) {
    Spend(std::min(a.size(), b.size()) / 64);
    return sign(a.string().compare(b.string()), 0);
  }
  if (a.is_list() && a.kind() == b.kind()) {
    for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
      if (Equal(a.items()[i], b.items()[i])) continue;
      return Compare(a.items()[i], b.items()[i]);
    }
    return sign(a.size(), b.size());
  }
  if (a.is_undefined()) Fail(a.undefined_why());
  if (b.is_undefined()) Fail(b.undefined_why());
  Fail(fmt::format("a {} and a {} have no order", a.type_name(), b.type_name()));
  return 0;
}

bool Interpreter::Contains(const Value& container, const Value& item) {
  if (failed()) return false;
  switch (container.kind()) {
    case Value::Kind::kUndefined:
      return false;
    case Value::Kind::kString:
      if (!item.is_string()) {
        Fail(fmt::format("'in <string>' needs a string, not a {}", item.type_name()));
        return false;
      }
      return Spend(container.size() / 64) &&
             FindText(container.string(), item.string()) != std::string_view::npos;
    case Value::Kind::kDict:
      return container.dict().Find(item) != nullptr;
    case Value::Kind::kList:
    case Value::Kind::kTuple:
      return std::any_of(container.items().begin(), container.items().end(),
                         [&](const Value& other) { return Equal(other, item); });
    default:
      Fail(fmt::format("'in' needs a container, not a {}", container.type_name()));
      return false;
  }
}

Value Interpreter::Attribute(const Value& object, const std::string& name) {
  if (failed()) return {};
  if (object.is_undefined()) return Fail(object.undefined_why());
  if (object.Is(Value::Kind::kLoop)) return LoopAttribute(object, name);
  if (const Method method = FindMethod(object, name)) {
    Callable callable;
    callable.name = name;
    callable.method = method;
    callable.self = object;
    return Value::Of(std::move(callable));
  }
  if (object.is_dict() || object.Is(Value::Kind::kNamespace)) {
    if (const Value* found = object.dict().Find(name)) return *found;
  }
  if (object.Is(Value::Kind::kCallable) && name == "name") {
    return Value::String(object.callable().name);
  }
  return Value::Undefined(
      fmt::format("'{} object' has no attribute '{}'", object.type_name(), name));
}

Value Interpreter::LoopAttribute(const Value& value, const std::string& name) {
  const Loop& loop = value.loop();
  const auto at = static_cast<int64_t>(loop.index);
  const auto count = static_cast<int64_t>(loop.items.size());
  if (name == "index") return Value::Int(at + 1);
  if (name == "index0") return Value::Int(at);
  if (name == "revindex") return Value::Int(count - at);
  if (name == "revindex0") return Value::Int(count - at - 1);
  if (name == "first") return Value::Bool(at == 0);
  if (name == "last") return Value::Bool(at + 1 == count);
  if (name == "length") return Value::Int(count);
  if (name == "depth") return Value::Int(1);  // Deeper only in recursive loops.
  if (name == "depth0") return Value::Int(0);
  if (name == "previtem") {
    return at > 0 ? loop.items[loop.index - 1] : Value::Undefined("there is no previous item");
  }
  if (name == "nextitem") {
    return at + 1 < count ? loop.items[loop.index + 1] : Value::Undefined("there is no next item");
  }
  if (const Method method = FindMethod(value, name)) {
    Callable callable;
    callable.name = name;
    callable.method = method;
    callable.self = value;
    return Value::Of(std::move(callable));
  }
  return Value::Undefined(fmt::format("'loop' has no attribute '{}'", name));
}

Value Interpreter::Index(const Value& object, const Value& key) {
  if (failed()) return {};
  if (object.is_undefined()) return Fail(object.undefined_why());
  if (object.is_dict()) {
    if (const Value* found = object.dict().Find(key)) return *found;
  } else if (key.is_integer() && (object.is_list() || object.is_string())) {
    if (object.is_string() && !Spend(object.size() / 64)) return {};
    const std::u32string chars = object.is_string() ? Chars(object.string()) : std::u32string();
    const auto count = static_cast<int64_t>(object.is_string() ? chars.size() : object.size());
    const int64_t at = key.integer() < 0 ? key.integer() + count : key.integer();
    if (at < 0 || at >= count) {
      return Value::Undefined(
          fmt::format("{} object has no element {}", object.type_name(), key.integer()));
    }
    const auto place = static_cast<size_t>(at);
    return object.is_list() ? object.items()[place]
                            : Value::String(FromChars(std::u32string_view(&chars[place], 1)));
  }
  if (key.is_string()) return Attribute(object, key.string());
  return Value::Undefined(fmt::format("'{} object' has no such element", object.type_name()));
}

Value Interpreter::Repeat(const Value& sequence, int64_t times) {
  const auto count = static_cast<size_t>(std::max<int64_t>(times, 0));
  const size_t each = std::max<size_t>(1, sequence.size() * (sequence.is_string() ? 1 : 48));
  if (count > limits_.output_bytes / each) return FailLimit("a repetition makes too large a value");
  if (!Room(count * each)) return {};
  if (sequence.is_string()) {
    std::string out;
    for (size_t i = 0; i < count && sequence.size() > 0; ++i) out += sequence.string();
    return Value::String(std::move(out));
  }
  Values items;
  for (size_t i = 0; i < count; ++i) {
    items.insert(items.end(), sequence.items().begin(), sequence.items().end());
  }
  return sequence.Is(Value::Kind::kTuple) ? Value::Tuple(std::move(items))
                                          : Value::List(std::move(items));
}

Value Interpreter::Binary(Operator op, const Value& a, const Value& b) {
  if (failed()) return {};
  if (a.is_undefined()) return Fail(a.undefined_why());
  if (b.is_undefined()) return Fail(b.undefined_why());
  if (op == Operator::kModulo && a.is_string()) {
    const Values values = b.Is(Value::Kind::kTuple) ? b.items() : Values{b};
    return Value::String(FormatPercent(*this, a.string(), values, b.is_dict() ? &b : nullptr));
  }
  if (op == Operator::kAdd && a.is_string() && b.is_string()) {
    if (!Room(a.size() + b.size()) || !Spend((a.size() + b.size()) / 64)) return {};
    return Value::String(a.string() + b.string());
  }
  if (op == Operator::kAdd && a.is_list() && a.kind() == b.kind()) {
    if (!Room((a.size() + b.size()) * 48) || !Spend(a.size() + b.size())) return {};
    Values items = a.items();
    items.insert(items.end(), b.items().begin(), b.items().end());
    return a.Is(Value::Kind::kTuple) ? Value::Tuple(std::move(items))
                                     : Value::List(std::move(items));
  }
  if (op == Operator::kMultiply) {
    if ((a.is_string() || a.is_list()) && b.is_integer()) return Repeat(a, b.integer());
    if ((b.is_string() || b.is_list()) && a.is_integer()) return Repeat(b, a.integer());
  }
  return Arithmetic(op, a, b);
}

Value Interpreter::Arithmetic(Operator op, const Value& a, const Value& b) {
  static constexpr std::string_view kSigns[] = {"+", "-", "*", "/", "//", "%", "**"};
  if (!a.is_number() || !b.is_number()) {
    return Fail(fmt::format("a {} {} a {} has no meaning", a.type_name(),
                            kSigns[static_cast<size_t>(op)], b.type_name()));
  }
  const bool divides =
      op == Operator::kDivide || op == Operator::kFloorDivide || op == Operator::kModulo;
  if (divides && b.number() == 0) return Fail("division by zero");
  const bool whole = a.is_integer() && b.is_integer() && op != Operator::kDivide &&
                     !(op == Operator::kPower && b.integer() < 0);
  return whole ? IntegerArithmetic(op, a.integer(), b.integer())
               : FloatArithmetic(op, a.number(), b.number());
}

Value Interpreter::IntegerArithmetic(Operator op, int64_t a, int64_t b) {
  int64_t out = 0;
  bool overflow = false;
  switch (op) {
    case Operator::kAdd:
      overflow = __builtin_add_overflow(a, b, &out);
      break;
    case Operator::kSubtract:
      overflow = __builtin_sub_overflow(a, b, &out);
      break;
    case Operator::kMultiply:
      overflow = __builtin_mul_overflow(a, b, &out);
      break;
    case Operator::kFloorDivide:
    case Operator::kModulo: {
      overflow = a == INT64_MIN && b == -1;
      if (overflow) break;
      // Python rounds down; the remainder has the divisor's sign.
      const bool correct = a % b != 0 && (a % b < 0) != (b < 0);
      out = op == Operator::kModulo ? a % b + (correct ? b : 0) : a / b - correct;
      break;
    }
    default:  // Power.
      out = 1;
      for (int64_t i = 0; i < b && !overflow; ++i) {
        overflow = !Spend(1) || __builtin_mul_overflow(out, a, &out);
        if (out == 0 || (out == 1 && a == 1)) break;
      }
  }
  if (overflow) return Fail("an integer beyond 64 bits");
  return Value::Int(out);
}

Value Interpreter::FloatArithmetic(Operator op, double a, double b) {
  switch (op) {
    case Operator::kAdd:
      return Value::Float(a + b);
    case Operator::kSubtract:
      return Value::Float(a - b);
    case Operator::kMultiply:
      return Value::Float(a * b);
    case Operator::kDivide:
      return Value::Float(a / b);
    case Operator::kFloorDivide:
      return Value::Float(std::floor(a / b));
    case Operator::kModulo: {
      const double remainder = std::fmod(a, b);
      return Value::Float(remainder != 0 && (remainder < 0) != (b < 0) ? remainder + b
                                                                       : remainder);
    }
    default:
      return Value::Float(std::pow(a, b));
  }
}

}  // namespace penstock::engine::jinja
