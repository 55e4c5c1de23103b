// Expressions of chat templates, with Jinja's precedence: conditional, or,
// and, not, comparison, + -, ~, * / // %, **, unary, then what follows a
// value: .x [x] (x), filters and tests.
#include <algorithm>
#include <charconv>

#include <fmt/format.h>

#include "backend-engine/text/template_builtins.h"
#include "backend-engine/text/template_parser.h"

namespace penstock::engine::jinja {
namespace {

using Kind = Expression::Kind;

template <typename... Pointers>
std::vector<ExpressionPtr> Children(Pointers... pointers) {
  std::vector<ExpressionPtr> out;
  (out.push_back(std::move(pointers)), ...);
  return out;
}

// The parser's own recursion, which the depth of the tree does not bound.
class Nest {
 public:
  explicit Nest(int& level) : level_(level) { ++level_; }
  ~Nest() { --level_; }

 private:
  int& level_;
};

int DepthOf(const ExpressionPtr& expression) {
  return expression == nullptr ? 0 : expression->depth;
}

}  // namespace

std::unique_ptr<Expression> Parser::Node(Kind kind, std::vector<ExpressionPtr> children) {
  auto node = std::make_unique<Expression>();
  node->kind = kind;
  node->line = Now().line;
  node->children = std::move(children);
  return node;
}

ExpressionPtr Parser::Done(std::unique_ptr<Expression> node) {
  for (const ExpressionPtr& child : node->children) {
    node->depth = std::max(node->depth, DepthOf(child) + 1);
  }
  for (const ExpressionPtr& child : node->call.positional) {
    node->depth = std::max(node->depth, DepthOf(child) + 1);
  }
  for (const auto& [name, child] : node->call.named) {
    node->depth = std::max(node->depth, DepthOf(child) + 1);
  }
  node->depth = std::max({node->depth, DepthOf(node->call.list) + 1,
                          DepthOf(node->call.mapping) + 1});
  if (node->depth > kTreeDepthMax) {
    Fail("an expression is nested too deeply");
    return std::make_unique<Expression>();
  }
  return node;
}

// One expression, or several with commas, which are a tuple.
ExpressionPtr Parser::ParseTuple(bool conditionals) {
  std::vector<ExpressionPtr> items;
  bool comma = false;
  do {
    const bool at_end = Now().kind == TokenKind::kPrintEnd || Now().kind == TokenKind::kBlockEnd ||
                        IsOperator(")");
    if (comma && at_end) break;
    items.push_back(conditionals ? ParseExpression() : ParseOr());
    comma = TakeOperator(",");
    if (!comma && items.size() == 1) return std::move(items.front());
  } while (comma && !failed());
  return Done(Node(Kind::kTuple, std::move(items)));
}

ExpressionPtr Parser::ParseExpression() {
  const Nest nest(nest_);
  if (nest_ > kNestMax) return Fail("nested too deeply");
  ExpressionPtr value = ParseOr();
  while (!failed() && TakeName("if")) {
    ExpressionPtr condition = ParseOr();
    ExpressionPtr otherwise;
    if (TakeName("else")) otherwise = ParseExpression();
    value = Done(Node(Kind::kConditional, Children(std::move(value), std::move(condition),
                                                   std::move(otherwise))));
  }
  return value;
}

ExpressionPtr Parser::ParseOr() {
  ExpressionPtr left = ParseAnd();
  while (!failed() && TakeName("or")) {
    ExpressionPtr right = ParseAnd();
    left = Done(Node(Kind::kOr, Children(std::move(left), std::move(right))));
  }
  return left;
}

ExpressionPtr Parser::ParseAnd() {
  ExpressionPtr left = ParseNot();
  while (!failed() && TakeName("and")) {
    ExpressionPtr right = ParseNot();
    left = Done(Node(Kind::kAnd, Children(std::move(left), std::move(right))));
  }
  return left;
}

ExpressionPtr Parser::ParseNot() {
  const Nest nest(nest_);
  if (nest_ > kNestMax) return Fail("nested too deeply");
  if (TakeName("not")) return Done(Node(Kind::kNot, Children(ParseNot())));
  return ParseCompare();
}

ExpressionPtr Parser::ParseCompare() {
  static constexpr std::pair<std::string_view, Operator> kOperators[] = {
      {"==", Operator::kEqual}, {"!=", Operator::kNotEqual},    {"<", Operator::kLess},
      {">", Operator::kGreater}, {"<=", Operator::kLessEqual}, {">=", Operator::kGreaterEqual}};
  ExpressionPtr first = ParseSum();
  auto node = Node(Kind::kCompare);
  while (!failed()) {
    const auto* found = std::find_if(std::begin(kOperators), std::end(kOperators),
                                     [this](const auto& entry) { return IsOperator(entry.first); });
    if (found != std::end(kOperators)) {
      Next();
      node->operators.push_back(found->second);
    } else if (TakeName("in")) {
      node->operators.push_back(Operator::kIn);
    } else if (IsName("not") && at_ + 1 < tokens_.size() && tokens_[at_ + 1].text == "in") {
      Next();
      Next();
      node->operators.push_back(Operator::kNotIn);
    } else {
      break;
    }
    node->children.push_back(ParseSum());
  }
  if (node->operators.empty()) return first;
  node->children.insert(node->children.begin(), std::move(first));
  return Done(std::move(node));
}

ExpressionPtr Parser::ParseSum() {
  ExpressionPtr left = ParseConcat();
  while (!failed() && (IsOperator("+") || IsOperator("-"))) {
    const Operator op = IsOperator("+") ? Operator::kAdd : Operator::kSubtract;
    Next();
    ExpressionPtr right = ParseConcat();
    auto node = Node(Kind::kBinary, Children(std::move(left), std::move(right)));
    node->operators = {op};
    left = Done(std::move(node));
  }
  return left;
}

ExpressionPtr Parser::ParseConcat() {
  ExpressionPtr first = ParseProduct();
  if (!IsOperator("~")) return first;
  auto node = Node(Kind::kConcat, Children(std::move(first)));
  while (!failed() && TakeOperator("~")) node->children.push_back(ParseProduct());
  return Done(std::move(node));
}

ExpressionPtr Parser::ParseProduct() {
  static constexpr std::pair<std::string_view, Operator> kOperators[] = {
      {"*", Operator::kMultiply},
      {"/", Operator::kDivide},
      {"//", Operator::kFloorDivide},
      {"%", Operator::kModulo}};
  ExpressionPtr left = ParsePower();
  while (!failed()) {
    const auto* found = std::find_if(std::begin(kOperators), std::end(kOperators),
                                     [this](const auto& entry) { return IsOperator(entry.first); });
    if (found == std::end(kOperators)) break;
    Next();
    ExpressionPtr right = ParsePower();
    auto node = Node(Kind::kBinary, Children(std::move(left), std::move(right)));
    node->operators = {found->second};
    left = Done(std::move(node));
  }
  return left;
}

ExpressionPtr Parser::ParsePower() {
  ExpressionPtr left = ParseUnary(true);
  while (!failed() && TakeOperator("**")) {
    ExpressionPtr right = ParseUnary(true);
    auto node = Node(Kind::kBinary, Children(std::move(left), std::move(right)));
    node->operators = {Operator::kPower};
    left = Done(std::move(node));
  }
  return left;
}

ExpressionPtr Parser::ParseUnary(bool with_filters) {
  const Nest nest(nest_);
  if (nest_ > kNestMax) return Fail("nested too deeply");
  ExpressionPtr value;
  if (TakeOperator("-")) {
    value = Done(Node(Kind::kNegate, Children(ParseUnary(false))));
  } else if (TakeOperator("+")) {
    value = Done(Node(Kind::kPlus, Children(ParseUnary(false))));
  } else {
    value = ParsePrimary();
  }
  value = ParsePostfix(std::move(value));
  return with_filters ? ParseFilters(std::move(value), true) : std::move(value);
}

ExpressionPtr Parser::ParsePrimary() {
  const Token& token = Now();
  switch (token.kind) {
    case TokenKind::kName:
      return ParseNamed();
    case TokenKind::kString: {
      auto node = Node(Kind::kConstant);
      std::string text;
      for (; Now().kind == TokenKind::kString; Next()) text += Now().text;
      node->constant = Value::String(std::move(text));
      return Done(std::move(node));
    }
    case TokenKind::kInteger:
    case TokenKind::kFloat:
      return ParseNumber();
    default:
      if (TakeOperator("(")) return ParseGroup();
      if (TakeOperator("[")) return ParseListLiteral();
      if (TakeOperator("{")) return ParseDictLiteral();
      return Fail(fmt::format("unexpected '{}', expected a value",
                              token.kind == TokenKind::kEnd ? "end" : token.text));
  }
}

ExpressionPtr Parser::ParseNamed() {
  auto node = Node(Kind::kConstant);
  const std::string name = ExpectName();
  if (name == "true" || name == "True") {
    node->constant = Value::Bool(true);
  } else if (name == "false" || name == "False") {
    node->constant = Value::Bool(false);
  } else if (name == "none" || name == "None") {
    node->constant = Value::None();
  } else {
    node->kind = Kind::kName;
    node->name = name;
  }
  return Done(std::move(node));
}

ExpressionPtr Parser::ParseNumber() {
  auto node = Node(Kind::kConstant);
  const std::string& text = Now().text;
  if (Now().kind == TokenKind::kFloat) {
    double value = 0;
    std::from_chars(text.data(), text.data() + text.size(), value);
    node->constant = Value::Float(value);
  } else {
    int64_t value = 0;
    const auto result = std::from_chars(text.data(), text.data() + text.size(), value);
    if (result.ec != std::errc()) return Fail("a number beyond 64 bits");
    node->constant = Value::Int(value);
  }
  Next();
  return Done(std::move(node));
}

ExpressionPtr Parser::ParseGroup() {
  if (TakeOperator(")")) return Done(Node(Kind::kTuple));
  ExpressionPtr value = ParseTuple(true);
  ExpectOperator(")");
  return value;
}

ExpressionPtr Parser::ParseListLiteral() {
  auto node = Node(Kind::kList);
  while (!failed() && !IsOperator("]")) {
    node->children.push_back(ParseExpression());
    if (!TakeOperator(",")) break;
  }
  ExpectOperator("]");
  return Done(std::move(node));
}

ExpressionPtr Parser::ParseDictLiteral() {
  auto node = Node(Kind::kDict);
  while (!failed() && !IsOperator("}")) {
    node->children.push_back(ParseExpression());
    ExpectOperator(":");
    node->children.push_back(ParseExpression());
    if (!TakeOperator(",")) break;
  }
  ExpectOperator("}");
  return Done(std::move(node));
}

ExpressionPtr Parser::ParsePostfix(ExpressionPtr value) {
  while (!failed()) {
    if (TakeOperator(".")) {
      value = ParseAttribute(std::move(value));
    } else if (TakeOperator("[")) {
      value = ParseSubscript(std::move(value));
    } else if (TakeOperator("(")) {
      value = ParseCall(std::move(value));
    } else {
      break;
    }
  }
  return value;
}

ExpressionPtr Parser::ParseAttribute(ExpressionPtr value) {
  if (Now().kind == TokenKind::kInteger) {
    ExpressionPtr index = ParseNumber();
    return Done(Node(Kind::kIndex, Children(std::move(value), std::move(index))));
  }
  auto node = Node(Kind::kAttribute, Children(std::move(value)));
  node->name = ExpectName();
  return Done(std::move(node));
}

// After "[": an index, or a slice.
ExpressionPtr Parser::ParseSubscript(ExpressionPtr value) {
  ExpressionPtr parts[3];
  size_t count = 0;
  bool slice = false;
  while (!failed() && count < 3) {
    if (!IsOperator(":") && !IsOperator("]")) parts[count] = ParseExpression();
    ++count;
    if (!TakeOperator(":")) break;
    slice = true;
  }
  ExpectOperator("]");
  if (!slice) {
    if (parts[0] == nullptr) return Fail("expected an index");
    return Done(Node(Kind::kIndex, Children(std::move(value), std::move(parts[0]))));
  }
  return Done(Node(Kind::kSlice, Children(std::move(value), std::move(parts[0]),
                                          std::move(parts[1]), std::move(parts[2]))));
}

ExpressionPtr Parser::ParseCall(ExpressionPtr callee) {
  auto node = Node(Kind::kCall, Children(std::move(callee)));
  ParseArguments(node->call);
  return Done(std::move(node));
}

// After "(", up to and with ")".
void Parser::ParseArguments(CallSyntax& call) {
  while (!failed() && !IsOperator(")")) {
    if (TakeOperator("**")) {
      if (call.mapping != nullptr) Fail("two ** arguments");
      call.mapping = ParseExpression();
    } else if (TakeOperator("*")) {
      if (call.list != nullptr || call.mapping != nullptr) Fail("a misplaced * argument");
      call.list = ParseExpression();
    } else if (Now().kind == TokenKind::kName && tokens_[at_ + 1].text == "=" &&
               tokens_[at_ + 1].kind == TokenKind::kOperator) {
      std::string name = ExpectName();
      Next();
      call.named.emplace_back(std::move(name), ParseExpression());
    } else {
      if (!call.named.empty() || call.list != nullptr || call.mapping != nullptr) {
        Fail("an argument without name after one with");
      }
      call.positional.push_back(ParseExpression());
    }
    if (!TakeOperator(",")) break;
  }
  ExpectOperator(")");
}

// `value` is null where the input is the text of a block.
ExpressionPtr Parser::ParseFilters(ExpressionPtr value, bool tests) {
  while (!failed()) {
    if (TakeOperator("|")) {
      value = ParseFilter(std::move(value));
    } else if (tests && TakeName("is")) {
      value = ParseTest(std::move(value));
    } else if (tests && TakeOperator("(")) {
      value = ParseCall(std::move(value));
    } else {
      break;
    }
  }
  return value;
}

ExpressionPtr Parser::ParseFilter(ExpressionPtr value) {
  auto node = Node(Kind::kFilter);
  if (value != nullptr) node->children.push_back(std::move(value));
  node->name = ExpectName();
  node->filter = FindFilter(node->name);
  if (node->filter == nullptr) return Fail(fmt::format("no filter named '{}'", node->name));
  if (TakeOperator("(")) ParseArguments(node->call);
  return Done(std::move(node));
}

ExpressionPtr Parser::ParseTest(ExpressionPtr value) {
  const bool negated = TakeName("not");
  auto node = Node(Kind::kTest, Children(std::move(value)));
  node->name = ExpectName();
  node->test = FindTest(node->name);
  if (node->test == nullptr) return Fail(fmt::format("no test named '{}'", node->name));
  const TokenKind kind = Now().kind;
  const bool value_follows = kind == TokenKind::kString || kind == TokenKind::kInteger ||
                             kind == TokenKind::kFloat || IsOperator("[") || IsOperator("{");
  const bool name_follows = kind == TokenKind::kName && !IsName("else") && !IsName("or") &&
                            !IsName("and") && !IsName("is") && !IsName("if") && !IsName("in") &&
                            !IsName("not");
  if (TakeOperator("(")) {
    ParseArguments(node->call);
  } else if (value_follows || name_follows) {
    node->call.positional.push_back(ParsePostfix(ParsePrimary()));
  }
  ExpressionPtr test = Done(std::move(node));
  return negated ? Done(Node(Kind::kNot, Children(std::move(test)))) : std::move(test);
}

}  // namespace penstock::engine::jinja
