#include <algorithm>

#include <fmt/format.h>

#include "absl/status/status.h"
#include "backend-engine/text/template_builtins.h"
#include "backend-engine/text/template_interpreter.h"
#include "backend-engine/text/template_text.h"

namespace penstock::engine::jinja {

Interpreter::~Interpreter() {
  for (const auto& name_space : namespaces_) name_space->Clear();
}

absl::StatusOr<std::string> Interpreter::Run(const Block& block, const Dict& variables) {
  std::string out;
  out_ = &out;
  variables_ = &variables;
  PushScope();
  Execute(block);
  PopScope();
  if (failed()) return error_;
  return out;
}

const Value* Arguments::Get(size_t place, std::string_view name) const {
  if (place < positional.size()) return &positional[place];
  for (const auto& [given, value] : named) {
    if (given == name) return &value;
  }
  return nullptr;
}

Value Interpreter::Fail(std::string why) {
  if (error_.ok()) {
    error_ = absl::InvalidArgumentError(fmt::format("chat template: line {}: {}", line_, OneLine(why)));
  }
  return {};
}

Value Interpreter::FailLimit(std::string what) {
  if (error_.ok()) {
    error_ = absl::ResourceExhaustedError(fmt::format("chat template: line {}: {}", line_, what));
  }
  return {};
}

Value Interpreter::Raise(std::string message) {
  if (error_.ok()) error_ = absl::InvalidArgumentError("chat template: " + OneLine(message));
  return {};
}

bool Interpreter::Spend(size_t steps) {
  steps_ += steps;
  if (steps_ > limits_.steps) FailLimit(fmt::format("more than {} steps", limits_.steps));
  return !failed();
}

bool Interpreter::Room(size_t bytes) {
  bytes_ = bytes > limits_.bytes ? limits_.bytes + 1 : bytes_ + bytes;
  if (bytes_ > limits_.bytes) FailLimit(fmt::format("made more than {} bytes", limits_.bytes));
  if (bytes > limits_.output_bytes) {
    FailLimit(fmt::format("a value of more than {} bytes", limits_.output_bytes));
  }
  return !failed();
}

void Interpreter::Print(std::string_view text) {
  if (!Spend(text.size() / 64)) return;
  if (out_->size() + text.size() > limits_.output_bytes) {
    FailLimit(fmt::format("printed more than {} bytes", limits_.output_bytes));
    return;
  }
  *out_ += text;
}

void Interpreter::PushScope() {
  auto scope = std::make_shared<Scope>();
  scope->parent = std::move(scope_);
  scope_ = std::move(scope);
}

void Interpreter::PopScope() {
  auto parent = scope_->parent;
  scope_ = std::move(parent);
}

std::string Interpreter::Capture(const Block& block) {
  std::string text;
  std::string* const outer = std::exchange(out_, &text);
  Execute(block);
  out_ = outer;
  Room(text.size());
  return text;
}

Interpreter::Flow Interpreter::Execute(const Block& block) {
  constexpr int kDepthMax = 400;
  if (depth_ >= kDepthMax) {
    FailLimit("macros and blocks nested too deeply");
    return Flow::kOn;
  }
  ++depth_;
  Flow flow = Flow::kOn;
  for (const auto& statement : block) {
    if (failed() || !Spend(1)) break;
    flow = Execute(*statement);
    if (flow != Flow::kOn) break;
  }
  --depth_;
  return flow;
}

Interpreter::Flow Interpreter::Execute(const Statement& statement) {
  line_ = statement.line;
  switch (statement.kind) {
    case Statement::Kind::kText:
      Print(statement.text);
      break;
    case Statement::Kind::kPrint: {
      const Value value = Evaluate(*statement.expression);
      if (!failed()) value.is_string() ? Print(value.string()) : Print(Str(value));
      break;
    }
    case Statement::Kind::kIf:
      for (const Statement::Branch& branch : statement.branches) {
        if (branch.condition == nullptr || Evaluate(*branch.condition).Truthy()) {
          return Execute(branch.body);
        }
        if (failed()) break;
      }
      break;
    case Statement::Kind::kFor:
      return ExecuteFor(statement);
    case Statement::Kind::kSet:
    case Statement::Kind::kSetBlock:
      ExecuteSet(statement);
      break;
    case Statement::Kind::kMacro: {
      Callable macro;
      macro.name = statement.name;
      macro.macro = &statement;
      macro.scope = scope_;
      SetVariable(statement.name, Value::Of(std::move(macro)));
      break;
    }
    case Statement::Kind::kCallBlock:
      ExecuteCallBlock(statement);
      break;
    case Statement::Kind::kFilterBlock: {
      PushScope();
      std::string text = Capture(statement.body);
      PopScope();
      Print(Str(EvaluateThrough(*statement.expression, std::move(text))));
      break;
    }
    case Statement::Kind::kWith:
      ExecuteWith(statement);
      break;
    case Statement::Kind::kScope:
      PushScope();
      Execute(statement.body);
      PopScope();
      break;
    case Statement::Kind::kBreak:
      return Flow::kBreak;
    case Statement::Kind::kContinue:
      return Flow::kContinue;
  }
  return Flow::kOn;
}

Interpreter::Flow Interpreter::ExecuteFor(const Statement& statement) {
  Values items = Iterate(Evaluate(*statement.expression));
  if (statement.condition != nullptr) {
    Values kept;
    for (Value& item : items) {
      if (failed()) break;
      PushScope();
      Assign(statement.target, item);
      if (Evaluate(*statement.condition).Truthy()) kept.push_back(std::move(item));
      PopScope();
    }
    items = std::move(kept);
  }
  if (failed()) return Flow::kOn;
  if (items.empty()) {
    PushScope();
    const Flow flow = Execute(statement.else_body);
    PopScope();
    return flow;
  }
  auto loop = std::make_shared<Loop>();
  for (const Value& item : items) {
    loop->depth_of_items = std::max(loop->depth_of_items, item.depth());
  }
  loop->items = std::move(items);
  for (; loop->index < loop->items.size() && !failed(); ++loop->index) {
    PushScope();
    scope_->variables.emplace_back("loop", Value::Of(loop));
    Assign(statement.target, loop->items[loop->index]);
    const Flow flow = Execute(statement.body);
    PopScope();
    if (flow == Flow::kBreak) break;
  }
  // A value kept from the loop may hold it; what it saw must not hold that value.
  loop->changed.reset();
  return Flow::kOn;
}

void Interpreter::Assign(const Target& target, const Value& value) {
  if (failed()) return;
  if (!target.elements.empty()) {
    const Values parts = Iterate(value);
    if (failed()) return;
    if (parts.size() != target.elements.size()) {
      Fail(fmt::format("{} values to unpack, expected {}", parts.size(), target.elements.size()));
      return;
    }
    for (size_t i = 0; i < parts.size(); ++i) Assign(target.elements[i], parts[i]);
    return;
  }
  if (!target.attribute.empty()) {
    const Value object = EvaluateName(target.name);
    if (!object.Is(Value::Kind::kNamespace)) {
      Fail(fmt::format("cannot set {}.{}: {} is no namespace", target.name, target.attribute,
                       target.name));
      return;
    }
    object.name_space().Set(target.attribute, value);
    return;
  }
  SetVariable(target.name, value);
}

void Interpreter::SetVariable(const std::string& name, Value value) {
  for (auto& [known, old] : scope_->variables) {
    if (known == name) {
      old = std::move(value);
      return;
    }
  }
  scope_->variables.emplace_back(name, std::move(value));
}

void Interpreter::ExecuteSet(const Statement& statement) {
  if (statement.kind == Statement::Kind::kSet) {
    return Assign(statement.target, Evaluate(*statement.expression));
  }
  PushScope();
  std::string text = Capture(statement.body);
  PopScope();
  Assign(statement.target, statement.expression == nullptr
                               ? Value::String(std::move(text))
                               : EvaluateThrough(*statement.expression, std::move(text)));
}

void Interpreter::ExecuteCallBlock(const Statement& statement) {
  Callable caller;
  caller.name = statement.name;
  caller.macro = &statement;
  caller.scope = scope_;
  const Expression& call = *statement.expression;
  const Value callee = Evaluate(*call.children[0]);
  Arguments arguments = EvaluateArguments(call.call);
  arguments.named.emplace_back("caller", Value::Of(std::move(caller)));
  Print(Str(Call(callee, std::move(arguments))));
}

void Interpreter::ExecuteWith(const Statement& statement) {
  Values values;
  for (const auto& [target, expression] : statement.assignments) {
    values.push_back(Evaluate(*expression));
  }
  PushScope();
  for (size_t i = 0; i < values.size(); ++i) Assign(statement.assignments[i].first, values[i]);
  Execute(statement.body);
  PopScope();
}

Value Interpreter::CallMacro(const Callable& callable, const Arguments& arguments) {
  const Statement& macro = *callable.macro;
  std::shared_ptr<Scope> home = callable.scope.lock();
  if (home == nullptr) {
    return Fail(fmt::format("macro '{}' is used outside the block that defines it", macro.name));
  }
  if (arguments.positional.size() > macro.parameters.size()) {
    return Fail(fmt::format("macro '{}' takes at most {} argument(s), not {}", macro.name,
                            macro.parameters.size(), arguments.positional.size()));
  }
  std::shared_ptr<Scope> outer = std::exchange(scope_, std::move(home));
  PushScope();
  std::vector<bool> used(arguments.named.size());
  for (size_t i = 0; i < macro.parameters.size(); ++i) {
    const Parameter& parameter = macro.parameters[i];
    Value value = Value::Undefined(fmt::format("parameter '{}' was not given", parameter.name));
    bool given = i < arguments.positional.size();
    if (given) value = arguments.positional[i];
    for (size_t k = 0; k < arguments.named.size(); ++k) {
      if (arguments.named[k].first != parameter.name) continue;
      if (given) Fail(fmt::format("macro '{}' got '{}' twice", macro.name, parameter.name));
      given = used[k] = true;
      value = arguments.named[k].second;
    }
    if (!given && parameter.fallback != nullptr) value = Evaluate(*parameter.fallback);
    scope_->variables.emplace_back(parameter.name, std::move(value));
  }
  for (size_t k = 0; k < used.size(); ++k) {
    const auto& [name, value] = arguments.named[k];
    if (used[k]) continue;
    if (name != "caller") Fail(fmt::format("macro '{}' takes no '{}'", macro.name, name));
    scope_->variables.emplace_back("caller", value);
  }
  std::string text = failed() ? std::string() : Capture(macro.body);
  scope_ = std::move(outer);
  return Value::String(std::move(text));
}

}  // namespace penstock::engine::jinja
