// Cuts a chat template into tokens, and settles all questions of white space:
// blocks are trimmed and stripped as Hugging Face renders them (trim_blocks
// and lstrip_blocks on, one newline at the end dropped, - and + honoured).
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace penstock::engine::jinja {

enum class TokenKind {
  kText,        // What is printed as it stands.
  kPrintBegin,  // {{
  kPrintEnd,
  kBlockBegin,  // {%
  kBlockEnd,
  kName,
  kInteger,
  kFloat,
  kString,      // Without quotes, escapes resolved.
  kOperator,
  kEnd
};

struct Token {
  TokenKind kind;
  std::string text;
  int line;
};

// Ends with kEnd. Errors name the line.
absl::StatusOr<std::vector<Token>> Tokenize(std::string_view source);

}  // namespace penstock::engine::jinja
