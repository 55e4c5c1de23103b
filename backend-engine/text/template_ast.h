// The tree of a parsed chat template. One struct for all expressions and one
// for all statements: the kind says which members mean something.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "backend-engine/text/template_value.h"

namespace penstock::engine::jinja {

class Interpreter;
struct Arguments;

using Filter = Value (*)(Interpreter&, const Value& input, const Arguments&);
using Test = bool (*)(Interpreter&, const Value& input, const Arguments&);

struct Expression;
using ExpressionPtr = std::unique_ptr<const Expression>;

struct CallSyntax {
  std::vector<ExpressionPtr> positional;
  std::vector<std::pair<std::string, ExpressionPtr>> named;
  ExpressionPtr list;     // *args
  ExpressionPtr mapping;  // **kwargs
};

enum class Operator {
  kAdd, kSubtract, kMultiply, kDivide, kFloorDivide, kModulo, kPower,
  kEqual, kNotEqual, kLess, kLessEqual, kGreater, kGreaterEqual, kIn, kNotIn
};

struct Expression {
  enum class Kind {
    kConstant,     // constant
    kName,         // name
    kList,         // children
    kTuple,        // children
    kDict,         // children: key, value, key, value ...
    kAttribute,    // children[0] . name
    kIndex,        // children[0] [ children[1] ]
    kSlice,        // children[0] [ children[1] : children[2] : children[3] ], each may be null
    kCall,         // children[0] ( call )
    kFilter,       // children[0] | filter ( call ); without child the text of a block
    kTest,         // children[0] is test ( call )
    kNot, kNegate, kPlus,  // children[0]
    kAnd, kOr,     // children[0], children[1]
    kBinary,       // children[0] operators[0] children[1]
    kConcat,       // children
    kCompare,      // children[0] operators[0] children[1] operators[1] children[2] ...
    kConditional   // children[0] if children[1] else children[2], which may be null
  };

  Kind kind = Kind::kConstant;
  int line = 0;
  int depth = 1;  // Of the tree below; bounded by the parser.
  std::string name;
  Value constant;
  std::vector<ExpressionPtr> children;
  std::vector<Operator> operators;
  CallSyntax call;
  Filter filter = nullptr;
  Test test = nullptr;
};

// What a set or a for assigns to: a name, a namespace's attribute, or several.
struct Target {
  std::string name;
  std::string attribute;         // Empty: the name itself.
  std::vector<Target> elements;  // Not empty: unpacked into these.
};

struct Statement;
using Block = std::vector<std::unique_ptr<const Statement>>;

struct Parameter {
  std::string name;
  ExpressionPtr fallback;  // Null: undefined.
};

struct Statement {
  enum class Kind {
    kText,         // text
    kPrint,        // expression
    kIf,           // branches
    kFor,          // target in expression [if condition]: body, else else_body
    kSet,          // target = expression
    kSetBlock,     // target = body [through expression, a filter]
    kMacro,        // name, parameters, body
    kCallBlock,    // expression is the call; parameters, body
    kFilterBlock,  // body through expression
    kWith,         // assignments, body
    kScope,        // body
    kBreak, kContinue
  };
  struct Branch {
    ExpressionPtr condition;  // Null: else.
    Block body;
  };

  Kind kind = Kind::kText;
  int line = 0;
  std::string text;
  std::string name;
  ExpressionPtr expression;
  ExpressionPtr condition;
  Target target;
  std::vector<Branch> branches;
  std::vector<Parameter> parameters;
  std::vector<std::pair<Target, ExpressionPtr>> assignments;
  Block body;
  Block else_body;
};

}  // namespace penstock::engine::jinja
