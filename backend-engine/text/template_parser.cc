#include "backend-engine/text/template_parser.h"

#include <algorithm>

#include <fmt/format.h>

#include "absl/status/status.h"
#include "backend-engine/text/template_text.h"

namespace penstock::engine::jinja {

absl::StatusOr<Block> ParseTemplate(std::string_view source) {
  absl::StatusOr<std::vector<Token>> tokens = Tokenize(source);
  if (!tokens.ok()) return tokens.status();
  Parser parser(std::move(*tokens));
  Block block = parser.ParseAll();
  if (!parser.error().empty()) return absl::InvalidArgumentError(parser.error());
  return block;
}

Block Parser::ParseAll() {
  Block block = ParseBlock({});
  if (Now().kind != TokenKind::kEnd) Fail("text after the end");
  return block;
}

// Statements up to a {% name of `ends`, whose "{%" is taken and whose name is
// not. Without `ends`: up to the end.
Block Parser::ParseBlock(const std::vector<std::string_view>& ends) {
  Block block;
  if (++nest_ > kNestMax) Fail(fmt::format("nested deeper than {} levels", kNestMax));
  while (!failed()) {
    const Token& token = Now();
    if (token.kind == TokenKind::kEnd) {
      if (!ends.empty()) Fail(fmt::format("the template ends before {}", ends.back()));
      break;
    }
    auto statement = std::make_unique<Statement>();
    statement->line = token.line;
    if (token.kind == TokenKind::kText) {
      statement->text = token.text;
      Next();
    } else if (token.kind == TokenKind::kPrintBegin) {
      Next();
      statement->kind = Statement::Kind::kPrint;
      statement->expression = ParseTuple(true);
      if (Now().kind != TokenKind::kPrintEnd) Fail("expected }}");
      Next();
    } else {
      Next();
      const bool ended = Now().kind == TokenKind::kName &&
                         std::find(ends.begin(), ends.end(), Now().text) != ends.end();
      if (ended) break;
      statement = ParseStatement();
    }
    block.push_back(std::move(statement));
  }
  --nest_;
  return block;
}

void Parser::EndBlock() {
  if (Now().kind != TokenKind::kBlockEnd) {
    Fail(fmt::format("unexpected '{}', expected %}}", Now().text));
  }
  Next();
}

std::unique_ptr<Statement> Parser::ParseStatement() {
  auto out = std::make_unique<Statement>();
  out->line = Now().line;
  const std::string name = ExpectName();
  if (name == "if") {
    ParseIf(*out);
  } else if (name == "for") {
    ParseFor(*out);
  } else if (name == "set") {
    ParseSet(*out);
  } else if (name == "macro") {
    ParseMacro(*out);
  } else if (name == "call") {
    ParseCallBlock(*out);
  } else if (name == "filter") {
    ParseFilterBlock(*out);
  } else if (name == "with") {
    ParseWith(*out);
  } else if (name == "generation") {  // Marks the model's own words for training.
    out->kind = Statement::Kind::kScope;
    EndBlock();
    out->body = ParseBlock({"endgeneration"});
    Next();
    EndBlock();
  } else if (name == "break" || name == "continue") {
    out->kind = name == "break" ? Statement::Kind::kBreak : Statement::Kind::kContinue;
    if (loops_ == 0) Fail(name + " outside a loop");
    EndBlock();
  } else {
    Fail(fmt::format("no statement '{}' for chat templates", name));
  }
  return out;
}

void Parser::ParseIf(Statement& out) {
  out.kind = Statement::Kind::kIf;
  bool more = true;
  ExpressionPtr condition = ParseTuple(false);
  while (more && !failed()) {
    EndBlock();
    const bool is_else = condition == nullptr;
    Block body = is_else ? ParseBlock({"endif"}) : ParseBlock({"elif", "else", "endif"});
    out.branches.push_back({std::move(condition), std::move(body)});
    if (TakeName("elif")) {
      condition = ParseTuple(false);
    } else if (TakeName("else")) {
      condition = nullptr;
    } else {
      more = false;
    }
  }
  Next();
  EndBlock();
}

void Parser::ParseFor(Statement& out) {
  out.kind = Statement::Kind::kFor;
  out.target = ParseTarget(false);
  if (out.target.name == "loop") Fail("a loop cannot be over 'loop'");
  if (!TakeName("in")) Fail("expected 'in'");
  out.expression = ParseTuple(false);
  if (TakeName("if")) out.condition = ParseExpression();
  if (IsName("recursive")) Fail("recursive loops are not supported");
  EndBlock();
  ++loops_;
  out.body = ParseBlock({"else", "endfor"});
  --loops_;
  if (TakeName("else")) {
    EndBlock();
    out.else_body = ParseBlock({"endfor"});
  }
  Next();
  EndBlock();
}

void Parser::ParseSet(Statement& out) {
  out.target = ParseTarget(true);
  if (TakeOperator("=")) {
    out.kind = Statement::Kind::kSet;
    out.expression = ParseTuple(true);
    return EndBlock();
  }
  out.kind = Statement::Kind::kSetBlock;
  if (IsOperator("|")) out.expression = ParseFilters(nullptr, false);
  EndBlock();
  out.body = ParseBlock({"endset"});
  Next();
  EndBlock();
}

std::vector<Parameter> Parser::ParseParameters() {
  std::vector<Parameter> parameters;
  ExpectOperator("(");
  while (!failed() && !IsOperator(")")) {
    Parameter parameter;
    parameter.name = ExpectName();
    if (TakeOperator("=")) {
      parameter.fallback = ParseExpression();
    } else if (!parameters.empty() && parameters.back().fallback != nullptr) {
      Fail("a parameter without default after one with");
    }
    parameters.push_back(std::move(parameter));
    if (!TakeOperator(",")) break;
  }
  ExpectOperator(")");
  return parameters;
}

void Parser::ParseMacro(Statement& out) {
  out.kind = Statement::Kind::kMacro;
  out.name = ExpectName();
  out.parameters = ParseParameters();
  EndBlock();
  const int loops = std::exchange(loops_, 0);
  out.body = ParseBlock({"endmacro"});
  loops_ = loops;
  Next();
  if (Now().kind == TokenKind::kName) Next();  // {% endmacro name %}
  EndBlock();
}

void Parser::ParseCallBlock(Statement& out) {
  out.kind = Statement::Kind::kCallBlock;
  out.name = "caller";
  if (IsOperator("(")) out.parameters = ParseParameters();
  out.expression = ParseExpression();
  if (!failed() && out.expression->kind != Expression::Kind::kCall) Fail("expected a call");
  EndBlock();
  const int loops = std::exchange(loops_, 0);
  out.body = ParseBlock({"endcall"});
  loops_ = loops;
  Next();
  EndBlock();
}

void Parser::ParseFilterBlock(Statement& out) {
  out.kind = Statement::Kind::kFilterBlock;
  ExpressionPtr first = ParseFilter(nullptr);
  out.expression = ParseFilters(std::move(first), false);
  EndBlock();
  out.body = ParseBlock({"endfilter"});
  Next();
  EndBlock();
}

void Parser::ParseWith(Statement& out) {
  out.kind = Statement::Kind::kWith;
  while (!failed() && Now().kind != TokenKind::kBlockEnd) {
    Target target = ParseOneTarget(false);
    ExpectOperator("=");
    out.assignments.emplace_back(std::move(target), ParseExpression());
    if (!TakeOperator(",")) break;
  }
  EndBlock();
  out.body = ParseBlock({"endwith"});
  Next();
  EndBlock();
}

Target Parser::ParseTarget(bool attributes) {
  Target first = ParseOneTarget(attributes);
  if (!IsOperator(",")) return first;
  Target all;
  all.elements.push_back(std::move(first));
  while (!failed() && TakeOperator(",")) {
    if (Now().kind != TokenKind::kName && !IsOperator("(")) break;
    if (IsName("in")) break;
    all.elements.push_back(ParseOneTarget(attributes));
  }
  return all;
}

Target Parser::ParseOneTarget(bool attributes) {
  Target target;
  if (TakeOperator("(")) {
    if (++nest_ > kNestMax) Fail("nested too deeply");
    target = ParseTarget(attributes);
    --nest_;
    ExpectOperator(")");
    return target;
  }
  target.name = ExpectName();
  for (const char* reserved : {"true", "false", "none", "True", "False", "None"}) {
    if (target.name == reserved) Fail(fmt::format("cannot assign to '{}'", reserved));
  }
  if (attributes && TakeOperator(".")) target.attribute = ExpectName();
  return target;
}

// --- tokens ----------------------------------------------------------------

bool Parser::IsOperator(std::string_view text) const {
  return Now().kind == TokenKind::kOperator && Now().text == text;
}

bool Parser::IsName(std::string_view text) const {
  return Now().kind == TokenKind::kName && Now().text == text;
}

bool Parser::TakeOperator(std::string_view text) {
  if (!IsOperator(text)) return false;
  Next();
  return true;
}

bool Parser::TakeName(std::string_view text) {
  if (!IsName(text)) return false;
  Next();
  return true;
}

void Parser::ExpectOperator(std::string_view text) {
  if (!TakeOperator(text)) Fail(fmt::format("unexpected '{}', expected '{}'", Now().text, text));
}

std::string Parser::ExpectName() {
  if (Now().kind != TokenKind::kName) {
    Fail(fmt::format("unexpected '{}', expected a name", Now().text));
    return "";
  }
  std::string name = Now().text;
  Next();
  return name;
}

std::nullptr_t Parser::Fail(std::string why) {
  if (error_.empty()) error_ = fmt::format("line {}: {}", Now().line, OneLine(why));
  return nullptr;
}

}  // namespace penstock::engine::jinja
