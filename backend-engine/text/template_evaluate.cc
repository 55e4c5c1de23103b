#include <fmt/format.h>

#include "backend-engine/text/template_builtins.h"
#include "backend-engine/text/template_interpreter.h"
#include "backend-engine/text/template_text.h"

namespace penstock::engine::jinja {
namespace {

using Kind = Expression::Kind;

constexpr int kDepthMax = 400;       // Of blocks and expressions under evaluation.
constexpr int kValueDepthMax = 200;  // Of lists in lists.

}  // namespace

Value Interpreter::Evaluate(const Expression& expression) {
  if (failed() || !Spend(1)) return {};
  if (depth_ >= kDepthMax) return FailLimit("macros and expressions nested too deeply");
  ++depth_;
  line_ = expression.line;
  Value value = EvaluateKind(expression);
  --depth_;
  if (value.depth() > kValueDepthMax) return FailLimit("a value is nested too deeply");
  return value;
}

Value Interpreter::EvaluateKind(const Expression& expression) {
  const auto child = [&](size_t index) { return Evaluate(*expression.children[index]); };
  switch (expression.kind) {
    case Kind::kConstant:
      return expression.constant;
    case Kind::kName:
      return EvaluateName(expression.name);
    case Kind::kList:
      return Value::List(EvaluateAll(expression.children));
    case Kind::kTuple:
      return Value::Tuple(EvaluateAll(expression.children));
    case Kind::kDict:
      return EvaluateDict(expression);
    case Kind::kAttribute:
      return Attribute(child(0), expression.name);
    case Kind::kIndex: {
      const Value object = child(0);
      return Index(object, child(1));
    }
    case Kind::kSlice:
      return EvaluateSlice(expression);
    case Kind::kCall:
      return EvaluateCall(expression);
    case Kind::kFilter:
      return EvaluateFilter(expression);
    case Kind::kTest: {
      const Value input = child(0);
      const Arguments arguments = EvaluateArguments(expression.call);
      return failed() ? Value() : Value::Bool(expression.test(*this, input, arguments));
    }
    case Kind::kNot:
      return Value::Bool(!child(0).Truthy());
    case Kind::kNegate:
      return Binary(Operator::kSubtract, Value::Int(0), child(0));
    case Kind::kPlus:
      return Binary(Operator::kAdd, Value::Int(0), child(0));
    case Kind::kAnd: {
      Value left = child(0);
      return left.Truthy() ? child(1) : left;
    }
    case Kind::kOr: {
      Value left = child(0);
      return left.Truthy() ? left : child(1);
    }
    case Kind::kBinary: {
      const Value left = child(0);
      return Binary(expression.operators[0], left, child(1));
    }
    case Kind::kConcat:
      return EvaluateConcat(expression);
    case Kind::kCompare:
      return EvaluateCompare(expression);
    case Kind::kConditional:
      if (child(1).Truthy()) return child(0);
      if (expression.children[2] != nullptr) return child(2);
      return Value::Undefined("the inline if has no else");
  }
  return {};
}

Value Interpreter::EvaluateName(const std::string& name) {
  for (const Scope* scope = scope_.get(); scope != nullptr; scope = scope->parent.get()) {
    for (const auto& [known, value] : scope->variables) {
      if (known == name) return value;
    }
  }
  if (const Value* found = variables_->Find(name)) return *found;
  if (const Function function = FindFunction(name)) {
    Callable callable;
    callable.name = name;
    callable.function = function;
    return Value::Of(std::move(callable));
  }
  return Value::Undefined(fmt::format("'{}' is undefined", name));
}

Values Interpreter::EvaluateAll(const std::vector<ExpressionPtr>& expressions) {
  Values values;
  values.reserve(expressions.size());
  for (const ExpressionPtr& expression : expressions) values.push_back(Evaluate(*expression));
  return values;
}

Value Interpreter::EvaluateDict(const Expression& expression) {
  Dict dict;
  for (size_t i = 0; i + 1 < expression.children.size(); i += 2) {
    const Value key = Evaluate(*expression.children[i]);
    Value value = Evaluate(*expression.children[i + 1]);
    if (failed()) return {};
    if (!Dict::CanBeKey(key)) return Fail(fmt::format("a {} cannot be a key", key.type_name()));
    dict.Set(key, std::move(value));
  }
  return Value::Of(std::move(dict));
}

Value Interpreter::EvaluateConcat(const Expression& expression) {
  std::string text;
  for (const ExpressionPtr& child : expression.children) {
    const Value value = Evaluate(*child);
    if (failed()) return {};
    value.is_string() ? text += value.string() : text += Str(value);
    if (!Room(value.is_string() ? value.size() : 16)) return {};
  }
  return Value::String(std::move(text));
}

Value Interpreter::EvaluateCompare(const Expression& expression) {
  Value left = Evaluate(*expression.children[0]);
  for (size_t i = 0; i < expression.operators.size(); ++i) {
    Value right = Evaluate(*expression.children[i + 1]);
    if (failed()) return {};
    bool holds = false;
    switch (expression.operators[i]) {
      case Operator::kEqual:
        holds = Equal(left, right);
        break;
      case Operator::kNotEqual:
        holds = !Equal(left, right);
        break;
      case Operator::kIn:
        holds = Contains(right, left);
        break;
      case Operator::kNotIn:
        holds = !Contains(right, left);
        break;
      case Operator::kLess:
        holds = Compare(left, right) < 0;
        break;
      case Operator::kLessEqual:
        holds = Compare(left, right) <= 0;
        break;
      case Operator::kGreater:
        holds = Compare(left, right) > 0;
        break;
      default:
        holds = Compare(left, right) >= 0;
        break;
    }
    if (!holds) return Value::Bool(false);
    left = std::move(right);
  }
  return Value::Bool(true);
}

Arguments Interpreter::EvaluateArguments(const CallSyntax& call) {
  Arguments arguments;
  arguments.positional = EvaluateAll(call.positional);
  for (const auto& [name, expression] : call.named) {
    arguments.named.emplace_back(name, Evaluate(*expression));
  }
  if (call.list != nullptr) {
    for (Value& value : Iterate(Evaluate(*call.list))) {
      arguments.positional.push_back(std::move(value));
    }
  }
  if (call.mapping != nullptr) {
    const Value mapping = Evaluate(*call.mapping);
    if (!failed() && !mapping.is_dict()) Fail("the value after ** is no mapping");
    if (failed()) return {};
    for (const auto& [name, value] : mapping.dict().items()) {
      arguments.named.emplace_back(Str(name), value);
    }
  }
  return arguments;
}

Value Interpreter::EvaluateCall(const Expression& expression) {
  const Expression& callee = *expression.children[0];
  // A method is called where it is named, without making a value of it.
  if (callee.kind == Kind::kAttribute) {
    const Value self = Evaluate(*callee.children[0]);
    if (failed()) return {};
    if (const Method method = FindMethod(self, callee.name)) {
      const Arguments arguments = EvaluateArguments(expression.call);
      if (failed() || !Spend(self.size() / 64)) return {};
      Value result = method(*this, self, arguments);
      Charge(result);
      return result;
    }
    const Value function = Attribute(self, callee.name);
    return Call(function, EvaluateArguments(expression.call));
  }
  const Value function = Evaluate(callee);
  return Call(function, EvaluateArguments(expression.call));
}

Value Interpreter::Call(const Value& callee, Arguments arguments) {
  if (failed()) return {};
  if (callee.is_undefined()) return Fail(callee.undefined_why());
  if (!callee.Is(Value::Kind::kCallable)) {
    return Fail(fmt::format("a {} cannot be called", callee.type_name()));
  }
  const Callable& callable = callee.callable();
  Value result;
  if (callable.macro != nullptr) {
    result = CallMacro(callable, arguments);
  } else if (callable.method != nullptr) {
    if (!Spend(callable.self.size() / 64)) return {};
    result = callable.method(*this, callable.self, arguments);
  } else {
    result = callable.function(*this, arguments);
  }
  Charge(result);
  return result;
}

Value Interpreter::EvaluateFilter(const Expression& expression) {
  const Value input = expression.children.empty() ? *block_text_ : Evaluate(*expression.children[0]);
  const Arguments arguments = EvaluateArguments(expression.call);
  if (failed() || !Spend(input.size() / 64)) return {};
  Value result = expression.filter(*this, input, arguments);
  Charge(result);
  return result;
}

Value Interpreter::EvaluateThrough(const Expression& filters, std::string text) {
  const Value input = Value::String(std::move(text));
  const Value* const outer = std::exchange(block_text_, &input);
  Value result = Evaluate(filters);
  block_text_ = outer;
  return result;
}

Value Interpreter::EvaluateSlice(const Expression& expression) {
  const Value object = Evaluate(*expression.children[0]);
  std::optional<int64_t> bounds[3];
  for (size_t i = 0; i < 3; ++i) {
    if (expression.children[i + 1] == nullptr) continue;
    const Value bound = Evaluate(*expression.children[i + 1]);
    if (failed()) return {};
    if (bound.is_none()) continue;
    if (!bound.is_integer()) return Fail("the bounds of a slice are integers");
    bounds[i] = bound.integer();
  }
  if (failed()) return {};
  if (object.is_undefined()) return Fail(object.undefined_why());
  if (!object.is_string() && !object.is_list()) {
    return Fail(fmt::format("a {} cannot be sliced", object.type_name()));
  }
  const int64_t step = bounds[2].value_or(1);
  if (step == 0 || step < -INT32_MAX || step > INT32_MAX) return Fail("a bad step of a slice");
  if (!Spend(object.size() / 16)) return {};
  const std::u32string chars = object.is_string() ? Chars(object.string()) : std::u32string();
  const auto count = static_cast<int64_t>(object.is_string() ? chars.size() : object.size());
  const auto clamp = [&](std::optional<int64_t> bound, int64_t absent) {
    if (!bound.has_value()) return absent;
    const int64_t low = step < 0 ? -1 : 0;
    const int64_t at = *bound < 0 ? *bound + count : *bound;
    return std::min(std::max(at, low), step < 0 ? count - 1 : count);
  };
  const int64_t begin = clamp(bounds[0], step < 0 ? count - 1 : 0);
  const int64_t end = clamp(bounds[1], step < 0 ? -1 : count);
  std::u32string text;
  Values items;
  for (int64_t i = begin; step < 0 ? i > end : i < end; i += step) {
    const auto at = static_cast<size_t>(i);
    if (object.is_string()) {
      text += chars[at];
    } else {
      items.push_back(object.items()[at]);
    }
  }
  Value result = object.is_string() ? Value::String(FromChars(text))
                 : object.Is(Value::Kind::kTuple) ? Value::Tuple(std::move(items))
                                                  : Value::List(std::move(items));
  Charge(result);
  return result;
}

void Interpreter::Charge(const Value& value) {
  const size_t each = value.is_string() ? 1 : value.is_dict() ? 160 : 48;
  Room(value.size() * each);
  Spend(value.size() * each / 64);
}

}  // namespace penstock::engine::jinja
