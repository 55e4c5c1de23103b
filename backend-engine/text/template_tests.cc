#include <utility>

#include <fmt/format.h>

#include "backend-engine/text/template_builtins.h"
#include "backend-engine/text/template_text.h"

namespace penstock::engine::jinja {
namespace {

using Kind = Value::Kind;

template <Kind kKind>
bool IsKind(Interpreter&, const Value& value, const Arguments&) {
  return value.Is(kKind);
}

bool IsDefined(Interpreter&, const Value& value, const Arguments&) { return !value.is_undefined(); }
bool IsBoolean(Interpreter&, const Value& value, const Arguments&) { return value.Is(Kind::kBool); }
bool IsTrue(Interpreter&, const Value& value, const Arguments&) {
  return value.Is(Kind::kBool) && value.Truthy();
}
bool IsFalse(Interpreter&, const Value& value, const Arguments&) {
  return value.Is(Kind::kBool) && !value.Truthy();
}
bool IsNumber(Interpreter&, const Value& value, const Arguments&) { return value.is_number(); }
bool IsMapping(Interpreter&, const Value& value, const Arguments&) { return value.is_dict(); }
bool IsIterable(Interpreter&, const Value& value, const Arguments&) {
  return value.is_string() || value.is_list() || value.is_dict() || value.is_undefined() ||
         value.Is(Kind::kLoop);
}
bool IsSequence(Interpreter&, const Value& value, const Arguments&) {
  return value.is_string() || value.is_list() || value.is_dict() || value.is_undefined();
}
bool IsLower(Interpreter&, const Value& value, const Arguments&) {
  return value.is_string() && LowerText(value.string()) == value.string() &&
         UpperText(value.string()) != value.string();
}
bool IsUpper(Interpreter&, const Value& value, const Arguments&) {
  return value.is_string() && UpperText(value.string()) == value.string() &&
         LowerText(value.string()) != value.string();
}

bool DividesBy(Interpreter& interpreter, const Value& value, int64_t divisor, int64_t rest) {
  const Value remainder = interpreter.Binary(Operator::kModulo, value, Value::Int(divisor));
  return remainder.is_number() && remainder.number() == static_cast<double>(rest);
}
bool IsEven(Interpreter& interpreter, const Value& value, const Arguments&) {
  return DividesBy(interpreter, value, 2, 0);
}
bool IsOdd(Interpreter& interpreter, const Value& value, const Arguments&) {
  return DividesBy(interpreter, value, 2, 1);
}
bool IsDivisibleBy(Interpreter& interpreter, const Value& value, const Arguments& arguments) {
  return DividesBy(interpreter, value, IntArgument(interpreter, arguments, 0, "num", 0), 0);
}

// The one argument of a comparison.
const Value& Other(Interpreter& interpreter, const Arguments& arguments) {
  static const Value kNothing;
  if (!arguments.positional.empty()) return arguments.positional[0];
  interpreter.Fail("a test needs an argument");
  return kNothing;
}

bool IsEqual(Interpreter& interpreter, const Value& value, const Arguments& arguments) {
  return interpreter.Equal(value, Other(interpreter, arguments));
}
bool IsNotEqual(Interpreter& interpreter, const Value& value, const Arguments& arguments) {
  return !interpreter.Equal(value, Other(interpreter, arguments));
}
bool IsLess(Interpreter& interpreter, const Value& value, const Arguments& arguments) {
  return interpreter.Compare(value, Other(interpreter, arguments)) < 0;
}
bool IsLessEqual(Interpreter& interpreter, const Value& value, const Arguments& arguments) {
  return interpreter.Compare(value, Other(interpreter, arguments)) <= 0;
}
bool IsGreater(Interpreter& interpreter, const Value& value, const Arguments& arguments) {
  return interpreter.Compare(value, Other(interpreter, arguments)) > 0;
}
bool IsGreaterEqual(Interpreter& interpreter, const Value& value, const Arguments& arguments) {
  return interpreter.Compare(value, Other(interpreter, arguments)) >= 0;
}
bool IsIn(Interpreter& interpreter, const Value& value, const Arguments& arguments) {
  return interpreter.Contains(Other(interpreter, arguments), value);
}
bool IsSameAs(Interpreter& interpreter, const Value& value, const Arguments& arguments) {
  return value.Same(Other(interpreter, arguments));
}

}  // namespace

Test FindTest(const std::string& name) {
  static constexpr std::pair<std::string_view, Test> kTests[] = {
      {"defined", IsDefined},     {"undefined", IsKind<Kind::kUndefined>},
      {"none", IsKind<Kind::kNone>}, {"string", IsKind<Kind::kString>},
      {"integer", IsKind<Kind::kInt>}, {"float", IsKind<Kind::kFloat>},
      {"callable", IsKind<Kind::kCallable>}, {"boolean", IsBoolean},
      {"true", IsTrue},           {"false", IsFalse},
      {"number", IsNumber},       {"mapping", IsMapping},
      {"iterable", IsIterable},   {"sequence", IsSequence},
      {"lower", IsLower},         {"upper", IsUpper},
      {"even", IsEven},           {"odd", IsOdd},
      {"divisibleby", IsDivisibleBy}, {"eq", IsEqual},
      {"equalto", IsEqual},       {"ne", IsNotEqual},
      {"lt", IsLess},             {"lessthan", IsLess},
      {"le", IsLessEqual},        {"gt", IsGreater},
      {"greaterthan", IsGreater}, {"ge", IsGreaterEqual},
      {"in", IsIn},               {"sameas", IsSameAs}};
  for (const auto& [known, test] : kTests) {
    if (known == name) return test;
  }
  return nullptr;
}

}  // namespace penstock::engine::jinja
