#include "backend-engine/text/template_lexer.h"

#include <algorithm>
#include <cctype>
#include <charconv>

#include <fmt/format.h>

#include "absl/status/status.h"
#include "backend-engine/text/template_text.h"
#include "backend-engine/text/unicode.h"

namespace penstock::engine::jinja {
namespace {

// All line ends are \n, and one at the very end is dropped.
std::string NormalLines(std::string_view source) {
  std::string out;
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] != '\r') {
      out += source[i];
      continue;
    }
    out += '\n';
    if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
  }
  if (!out.empty() && out.back() == '\n') out.pop_back();
  return out;
}

bool StartsName(char c) {
  return std::isalpha(static_cast<unsigned char>(c)) || c == '_' || static_cast<signed char>(c) < 0;
}
bool IsDigitChar(char c) { return c >= '0' && c <= '9'; }

class Lexer {
 public:
  explicit Lexer(std::string_view source) : source_(NormalLines(source)), rest_(source_) {}

  absl::StatusOr<std::vector<Token>> Run() {
    while (!rest_.empty() && error_.empty()) LexText();
    if (!error_.empty()) {
      return absl::InvalidArgumentError(fmt::format("line {}: {}", line_, error_));
    }
    Add(TokenKind::kEnd, "");
    return std::move(tokens_);
  }

 private:
  void Add(TokenKind kind, std::string text) { tokens_.push_back({kind, std::move(text), line_}); }

  void Fail(std::string why) {
    if (error_.empty()) error_ = std::move(why);
  }

  void Take(size_t count) {
    for (const char c : rest_.substr(0, count)) line_ += c == '\n';
    line_starting_ = count > 0 && rest_[count - 1] == '\n';
    rest_.remove_prefix(count);
  }

  // White space after a tag that ends in -, or the newline after a block.
  void TakeAfterTag(char sign, bool trims_newline) {
    if (sign == '-') {
      const size_t size = rest_.size() - Strip(rest_, Side::kLeft).size();
      if (size > 0) Take(size);
    } else if (trims_newline && sign != '+' && !rest_.empty() && rest_.front() == '\n') {
      Take(1);
    }
  }

  // The text before a tag at `at`, without what the tag strips from it.
  void AddTextBefore(size_t at, char sign, bool strips_line) {
    std::string_view text = rest_.substr(0, at);
    if (sign == '-') {
      text = Strip(text, Side::kRight);
    } else if (sign != '+' && strips_line) {
      const size_t newline = text.rfind('\n');
      const size_t line = newline == std::string_view::npos ? 0 : newline + 1;
      if ((line > 0 || line_starting_) && Strip(text.substr(line), Side::kLeft).empty()) {
        text = text.substr(0, line);
      }
    }
    if (!text.empty()) Add(TokenKind::kText, std::string(text));
  }

  void LexText() {
    size_t at = 0;
    do {
      at = rest_.find('{', at);
    } while (at != std::string_view::npos && at + 1 < rest_.size() && rest_[at + 1] != '{' &&
             rest_[at + 1] != '%' && rest_[at + 1] != '#' && ++at);
    if (at == std::string_view::npos || at + 1 >= rest_.size()) {
      Add(TokenKind::kText, std::string(rest_));
      rest_ = {};
      return;
    }
    const char type = rest_[at + 1];
    const char sign = at + 2 < rest_.size() ? rest_[at + 2] : '\0';
    const bool has_sign = sign == '-' || sign == '+';
    AddTextBefore(at, sign, type != '{');
    Take(at + 2 + has_sign);
    if (type == '#') return LexComment();
    if (type == '%' && LexRaw()) return;
    Add(type == '{' ? TokenKind::kPrintBegin : TokenKind::kBlockBegin, "");
    LexCode(type == '{' ? '}' : '%');
  }

  void LexComment() {
    const size_t end = rest_.find("#}");
    if (end == std::string_view::npos) return Fail("a comment is not closed by #}");
    const char sign = end > 0 ? rest_[end - 1] : '\0';
    Take(end + 2);
    TakeAfterTag(sign, true);
  }

  // After "{%": a raw section, if it is one.
  bool LexRaw() {
    std::string_view rest = Strip(rest_, Side::kLeft);
    if (!rest.starts_with("raw")) return false;
    rest = Strip(rest.substr(3), Side::kLeft);
    const char begin_sign = rest.starts_with("-%}") ? '-' : '\0';
    if (!rest.starts_with(begin_sign == '-' ? "-%}" : "%}")) return false;
    Take(rest_.size() - rest.size() + (begin_sign == '-' ? 3 : 2));
    TakeAfterTag(begin_sign, false);
    for (size_t at = 0; (at = rest_.find("{%", at)) != std::string_view::npos; ++at) {
      std::string_view tail = rest_.substr(at + 2);
      const char sign = tail.empty() ? '\0' : tail.front();
      if (sign == '-' || sign == '+') tail.remove_prefix(1);
      tail = Strip(tail, Side::kLeft);
      if (!tail.starts_with("endraw")) continue;
      tail = Strip(tail.substr(6), Side::kLeft);
      const char end_sign = tail.empty() ? '\0' : tail.front();
      if (end_sign == '-' || end_sign == '+') tail.remove_prefix(1);
      if (!tail.starts_with("%}")) continue;
      AddTextBefore(at, sign, true);
      Take(rest_.size() - tail.size() + 2);
      TakeAfterTag(end_sign, true);
      return true;
    }
    Fail("a raw block is not closed by endraw");
    return true;
  }

  // Up to and with the end of the tag: "}}" where `close` is '}', or "%}".
  void LexCode(char close) {
    std::string open;  // Brackets that are open; inside them "}}" ends nothing.
    while (error_.empty()) {
      Take(rest_.size() - Strip(rest_, Side::kLeft).size());
      if (rest_.empty()) return Fail("a tag is not closed");
      if (open.empty()) {
        const char sign = rest_.front();
        const bool signed_end = sign == '-' || (sign == '+' && close == '%');
        const std::string_view tail = rest_.substr(signed_end ? 1 : 0);
        if (tail.size() >= 2 && tail[0] == close && tail[1] == '}') {
          Take(signed_end ? 3 : 2);
          TakeAfterTag(signed_end ? sign : '\0', close == '%');
          return Add(close == '%' ? TokenKind::kBlockEnd : TokenKind::kPrintEnd, "");
        }
      }
      LexToken(open);
    }
  }

  void LexToken(std::string& open) {
    const char c = rest_.front();
    if (StartsName(c)) return LexName();
    if (IsDigitChar(c)) return LexNumber();
    if (c == '\'' || c == '"') return LexString();
    for (const std::string_view two : {"//", "**", "==", "!=", ">=", "<="}) {
      if (!rest_.starts_with(two)) continue;
      Add(TokenKind::kOperator, std::string(two));
      return Take(2);
    }
    if (std::string_view("+-*/%~()[]{}<>=.:|,;").find(c) == std::string_view::npos) {
      return Fail(fmt::format("unexpected character {:02x}", static_cast<unsigned char>(c)));
    }
    if (c == '(' || c == '[' || c == '{') open += c == '(' ? ')' : c == '[' ? ']' : '}';
    if (c == ')' || c == ']' || c == '}') {
      if (open.empty() || open.back() != c) return Fail(fmt::format("unexpected '{}'", c));
      open.pop_back();
    }
    Add(TokenKind::kOperator, std::string(1, c));
    Take(1);
  }

  void LexName() {
    size_t size = 0;
    while (size < rest_.size() && (StartsName(rest_[size]) || IsDigitChar(rest_[size]))) ++size;
    Add(TokenKind::kName, std::string(rest_.substr(0, size)));
    Take(size);
  }

  void LexNumber() {
    size_t size = 0;
    const auto digits = [&] {
      while (size < rest_.size() && (IsDigitChar(rest_[size]) || rest_[size] == '_')) ++size;
    };
    digits();
    bool is_float = false;
    // Not after a dot: in a.0.1 both are indexes.
    const bool after_dot = !tokens_.empty() && tokens_.back().text == ".";
    if (!after_dot && size + 1 < rest_.size() && rest_[size] == '.' &&
        IsDigitChar(rest_[size + 1])) {
      is_float = true;
      ++size;
      digits();
    }
    if (size < rest_.size() && (rest_[size] == 'e' || rest_[size] == 'E')) {
      size_t sign = size + 1;
      if (sign < rest_.size() && (rest_[sign] == '+' || rest_[sign] == '-')) ++sign;
      if (sign < rest_.size() && IsDigitChar(rest_[sign])) {
        is_float = true;
        size = sign;
        digits();
      }
    }
    std::string text(rest_.substr(0, size));
    std::erase(text, '_');
    Add(is_float ? TokenKind::kFloat : TokenKind::kInteger, std::move(text));
    Take(size);
  }

  void LexString() {
    const char quote = rest_.front();
    std::string text;
    size_t at = 1;
    while (at < rest_.size() && rest_[at] != quote) {
      if (rest_[at] == '\\' && at + 1 < rest_.size()) {
        at += Unescape(rest_.substr(at + 1), text) + 1;
      } else {
        text += rest_[at++];
      }
    }
    if (at >= rest_.size()) return Fail("a string is not closed");
    Add(TokenKind::kString, std::move(text));
    Take(at + 1);
  }

  // What follows a backslash, as in a Python string; returns how much it took.
  size_t Unescape(std::string_view rest, std::string& out) {
    static constexpr std::string_view kFrom = "\\'\"abfnrtv";
    static constexpr std::string_view kTo = "\\'\"\a\b\f\n\r\t\v";
    const char c = rest.front();
    if (const size_t index = kFrom.find(c); index != std::string_view::npos) {
      out += kTo[index];
      return 1;
    }
    if (c == '\n') return 1;
    const bool octal = c >= '0' && c <= '7';
    const size_t skip = octal ? 0 : 1;
    const size_t width = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : octal ? 3 : 0;
    if (width == 0) {
      out += '\\';  // Python keeps the backslash of an escape that it does not know.
      return 0;
    }
    const std::string_view digits = rest.substr(skip, width);
    uint32_t code = 0;
    const auto [end, ok] =
        std::from_chars(digits.data(), digits.data() + digits.size(), code, octal ? 8 : 16);
    const auto used = static_cast<size_t>(end - digits.data());
    if (ok != std::errc() || (!octal && used != width) || code > 0x10FFFF ||
        (code >= 0xD800 && code <= 0xDFFF)) {
      Fail("a string holds a broken escape");
      return 1;
    }
    AppendChar(code, out);
    return skip + used;
  }

  const std::string source_;
  std::string_view rest_;
  std::vector<Token> tokens_;
  std::string error_;
  int line_ = 1;
  bool line_starting_ = true;
};

}  // namespace

absl::StatusOr<std::vector<Token>> Tokenize(std::string_view source) {
  return Lexer(source).Run();
}

}  // namespace penstock::engine::jinja
