// Runs the tree of a chat template. A template is not trusted: every step and
// every byte made is counted against a limit, depth is bounded, and there is
// nothing that it can reach but its variables.
//
// Errors are sticky: the first one stays, everything after it returns at once
// with an undefined value, and Run() reports it. So code here need not look
// after each call, only before it makes something large.
//
// Threads: one render, one interpreter, one thread.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "backend-engine/text/template.h"
#include "backend-engine/text/template_ast.h"
#include "backend-engine/text/template_value.h"

namespace penstock::engine::jinja {

// The arguments of a call, evaluated.
struct Arguments {
  Values positional;
  std::vector<std::pair<std::string, Value>> named;

  // By place or by name; null where it was not given.
  const Value* Get(size_t place, std::string_view name) const;
};

using Function = Value (*)(Interpreter&, const Arguments&);
using Method = Value (*)(Interpreter&, const Value& self, const Arguments&);

struct Scope {
  std::shared_ptr<Scope> parent;
  std::vector<std::pair<std::string_view, Value>> variables;  // Names live in the tree.
};

struct Callable {
  std::string name;
  Function function = nullptr;
  Method method = nullptr;          // Called on `self`.
  Value self;
  const Statement* macro = nullptr;
  std::weak_ptr<Scope> scope;       // Where the macro was defined; weak, for it is held there.
};

// The variable `loop`.
struct Loop {
  Values items;
  int depth_of_items = 0;
  size_t index = 0;
  std::optional<Values> changed;  // What loop.changed() saw last.
};

class Interpreter {
 public:
  Interpreter(const TemplateLimits& limits, absl::Time now) : limits_(limits), now_(now) {}
  ~Interpreter();

  absl::StatusOr<std::string> Run(const Block& block, const Dict& variables);

  // --- for filters, tests, methods and functions ---------------------------

  Value Fail(std::string why);        // The template or its input is at fault.
  Value FailLimit(std::string what);
  Value Raise(std::string message);   // raise_exception().
  bool failed() const { return !error_.ok(); }

  // Counts work; false once there was too much.
  bool Spend(size_t steps);
  // To be asked before something of that size is made.
  bool Room(size_t bytes);
  size_t output_bytes_max() const { return limits_.output_bytes; }

  std::string Str(const Value& value);   // str()
  // What a loop over it sees; fails for what cannot be iterated.
  Values Iterate(const Value& value);
  bool Equal(const Value& a, const Value& b);
  // Negative, 0 or positive; fails where they have no order.
  int Compare(const Value& a, const Value& b);
  bool Contains(const Value& container, const Value& item);
  Value Attribute(const Value& object, const std::string& name);
  Value Index(const Value& object, const Value& key);
  Value Binary(Operator op, const Value& a, const Value& b);
  Value Call(const Value& callee, Arguments arguments);
  Value NewNamespace(const Arguments& arguments);
  absl::Time now() const { return now_; }

 private:
  enum class Flow { kOn, kBreak, kContinue };
  class Deeper;

  // template_statements.cc
  Flow Execute(const Block& block);
  Flow Execute(const Statement& statement);
  Flow ExecuteFor(const Statement& statement);
  void ExecuteSet(const Statement& statement);
  void ExecuteCallBlock(const Statement& statement);
  void ExecuteWith(const Statement& statement);
  void Assign(const Target& target, const Value& value);
  // In the innermost scope. `name` is a string of the tree.
  void SetVariable(const std::string& name, Value value);
  std::string Capture(const Block& block);
  void Print(std::string_view text);
  void PushScope();
  void PopScope();
  Value CallMacro(const Callable& callable, const Arguments& arguments);

  // template_evaluate.cc
  Value Evaluate(const Expression& expression);
  Value EvaluateKind(const Expression& expression);
  Value EvaluateName(const std::string& name);
  Value EvaluateCompare(const Expression& expression);
  Value EvaluateConcat(const Expression& expression);
  Value EvaluateCall(const Expression& expression);
  Value EvaluateFilter(const Expression& expression);
  Value EvaluateDict(const Expression& expression);
  Value EvaluateSlice(const Expression& expression);
  Value EvaluateThrough(const Expression& filters, std::string text);
  Values EvaluateAll(const std::vector<ExpressionPtr>& expressions);
  Arguments EvaluateArguments(const CallSyntax& call);
  void Charge(const Value& value);

  // template_operators.cc
  Value LoopAttribute(const Value& loop, const std::string& name);
  Value Arithmetic(Operator op, const Value& a, const Value& b);
  Value IntegerArithmetic(Operator op, int64_t a, int64_t b);
  Value FloatArithmetic(Operator op, double a, double b);
  Value Repeat(const Value& sequence, int64_t times);

  const TemplateLimits limits_;
  const absl::Time now_;
  absl::Status error_;
  size_t steps_ = 0;
  size_t bytes_ = 0;
  int depth_ = 0;
  int line_ = 0;
  const Dict* variables_ = nullptr;
  std::shared_ptr<Scope> scope_;
  std::string* out_ = nullptr;
  const Value* block_text_ = nullptr;             // Input of a block's first filter.
  std::vector<std::shared_ptr<Dict>> namespaces_;  // Emptied at the end: they may hold each other.
};

// The text that "..." % values gives.
std::string FormatPercent(Interpreter& interpreter, std::string_view format, const Values& values,
                          const Value* mapping);

}  // namespace penstock::engine::jinja
