// From the tokens of a chat template to its tree. What templates may not do
// here (include, import, extends, recursive loops) is refused by name.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "backend-engine/text/template_ast.h"
#include "backend-engine/text/template_lexer.h"

namespace penstock::engine::jinja {

inline constexpr int kNestMax = 150;      // Of statements and brackets in the source.
inline constexpr int kTreeDepthMax = 200;  // Of one expression.

absl::StatusOr<Block> ParseTemplate(std::string_view source);

// The grammar, one function a rule, lowest precedence first. After an error
// every function returns soon and what it returns is not used.
class Parser {
 public:
  explicit Parser(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

  Block ParseAll();
  const std::string& error() const { return error_; }

 private:
  // Statements: template_parser.cc.
  Block ParseBlock(const std::vector<std::string_view>& ends);
  std::unique_ptr<Statement> ParseStatement();
  void ParseIf(Statement& out);
  void ParseFor(Statement& out);
  void ParseSet(Statement& out);
  void ParseMacro(Statement& out);
  void ParseCallBlock(Statement& out);
  void ParseFilterBlock(Statement& out);
  void ParseWith(Statement& out);
  std::vector<Parameter> ParseParameters();
  Target ParseTarget(bool attributes);
  Target ParseOneTarget(bool attributes);
  void EndBlock();

  // Expressions: template_expressions.cc.
  ExpressionPtr ParseTuple(bool conditionals);
  ExpressionPtr ParseExpression();
  ExpressionPtr ParseOr();
  ExpressionPtr ParseAnd();
  ExpressionPtr ParseNot();
  ExpressionPtr ParseCompare();
  ExpressionPtr ParseSum();
  ExpressionPtr ParseConcat();
  ExpressionPtr ParseProduct();
  ExpressionPtr ParsePower();
  ExpressionPtr ParseUnary(bool with_filters);
  ExpressionPtr ParsePrimary();
  ExpressionPtr ParseNamed();
  ExpressionPtr ParseNumber();
  ExpressionPtr ParseGroup();
  ExpressionPtr ParseListLiteral();
  ExpressionPtr ParseDictLiteral();
  ExpressionPtr ParsePostfix(ExpressionPtr value);
  ExpressionPtr ParseAttribute(ExpressionPtr value);
  ExpressionPtr ParseSubscript(ExpressionPtr value);
  ExpressionPtr ParseCall(ExpressionPtr callee);
  ExpressionPtr ParseFilters(ExpressionPtr value, bool tests);
  ExpressionPtr ParseFilter(ExpressionPtr value);
  ExpressionPtr ParseTest(ExpressionPtr value);
  void ParseArguments(CallSyntax& call);

  // Tokens.
  const Token& Now() const { return tokens_[at_]; }
  void Next() {
    if (at_ + 1 < tokens_.size()) ++at_;
  }
  bool IsOperator(std::string_view text) const;
  bool IsName(std::string_view text) const;
  bool TakeOperator(std::string_view text);
  bool TakeName(std::string_view text);
  void ExpectOperator(std::string_view text);
  std::string ExpectName();
  std::nullptr_t Fail(std::string why);
  bool failed() const { return !error_.empty(); }

  // Makes a node above `children`, unless it would be too deep.
  std::unique_ptr<Expression> Node(Expression::Kind kind, std::vector<ExpressionPtr> children = {});
  ExpressionPtr Done(std::unique_ptr<Expression> node);

  std::vector<Token> tokens_;
  size_t at_ = 0;
  int nest_ = 0;
  int loops_ = 0;
  std::string error_;
};

}  // namespace penstock::engine::jinja
