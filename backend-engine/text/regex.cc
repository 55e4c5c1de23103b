#define PCRE2_CODE_UNIT_WIDTH 8
#include "backend-engine/text/regex.h"

#include <pcre2.h>

#include <fmt/format.h>

#include "absl/status/status.h"
#include "backend-engine/text/unicode.h"

namespace penstock::engine {
namespace {

constexpr size_t kPatternBytesMax = 64 << 10;
constexpr uint32_t kMatchLimit = 10'000'000;
constexpr size_t kJitStackBytesMax = 1 << 20;

// PCRE2's own \s also holds U+180E, which left the class in Unicode 6.3.
constexpr std::string_view kSpaces =
    "\\t-\\r \\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}"
    "\\x{3000}";

std::string ErrorText(int code) {
  PCRE2_UCHAR buffer[256];
  pcre2_get_error_message(code, buffer, sizeof(buffer));
  return reinterpret_cast<const char*>(buffer);
}

// What one thread needs to run any expression; made once, reused by all.
struct Scratch {
  Scratch() {
    pcre2_set_match_limit(context, kMatchLimit);
    pcre2_jit_stack_assign(context, nullptr, stack);
  }
  ~Scratch() {
    pcre2_match_data_free(data);
    pcre2_match_context_free(context);
    pcre2_jit_stack_free(stack);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  pcre2_match_data* data = pcre2_match_data_create(1, nullptr);
  pcre2_match_context* context = pcre2_match_context_create(nullptr);
  pcre2_jit_stack* stack = pcre2_jit_stack_create(32 << 10, kJitStackBytesMax, nullptr);
};

}  // namespace

struct Regex::Code {
  explicit Code(pcre2_code* compiled) : compiled(compiled) {}
  ~Code() { pcre2_code_free(compiled); }
  Code(const Code&) = delete;
  Code& operator=(const Code&) = delete;

  pcre2_code* compiled;
};

Regex::Regex(std::unique_ptr<Code> code) : code_(std::move(code)) {}
Regex::Regex(Regex&&) noexcept = default;
Regex& Regex::operator=(Regex&&) noexcept = default;
Regex::~Regex() = default;

std::string SpellForPcre2(std::string_view pattern) {
  std::string out;
  int class_depth = 0;
  for (size_t i = 0; i < pattern.size(); ++i) {
    const char c = pattern[i];
    if (c != '\\' || i + 1 >= pattern.size()) {
      if (c == '[' && class_depth == 0) ++class_depth;
      else if (c == ']' && class_depth > 0) --class_depth;
      out += c;
      continue;
    }
    const char escaped = pattern[++i];
    if (escaped == 's') {
      out += class_depth > 0 ? std::string(kSpaces) : fmt::format("[{}]", kSpaces);
    } else if (escaped == 'S' && class_depth == 0) {
      out += fmt::format("[^{}]", kSpaces);
    } else if (escaped == 'h') {
      out += class_depth > 0 ? "0-9A-Fa-f" : "[0-9A-Fa-f]";
    } else {
      out += c;
      out += escaped;
    }
  }
  return out;
}

absl::StatusOr<Regex> Regex::Compile(std::string_view pattern) {
  // In Oniguruma's Ruby syntax ^ and $ always look at lines.
  return CompileWith(SpellForPcre2(pattern), PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE |
                                                 PCRE2_NEVER_BACKSLASH_C);
}

absl::StatusOr<Regex> Regex::Literal(std::string_view text) {
  return CompileWith(text, PCRE2_UTF | PCRE2_LITERAL);
}

absl::StatusOr<Regex> Regex::CompileWith(std::string_view pattern, uint32_t options) {
  if (pattern.size() > kPatternBytesMax) {
    return absl::InvalidArgumentError(fmt::format("regular expression of {} bytes; at most {}",
                                                  pattern.size(), kPatternBytesMax));
  }
  int error = 0;
  PCRE2_SIZE offset = 0;
  pcre2_code* compiled =
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(), options, &error,
                    &offset, nullptr);
  if (compiled == nullptr) {
    return absl::InvalidArgumentError(
        fmt::format("regular expression, byte {}: {}", offset, ErrorText(error)));
  }
  // Where the machine has no JIT the interpreter runs, with the same results.
  pcre2_jit_compile(compiled, PCRE2_JIT_COMPLETE);
  return Regex(std::make_unique<Code>(compiled));
}

absl::StatusOr<std::optional<Regex::Match>> Regex::Find(std::string_view subject,
                                                        size_t from) const {
  static thread_local Scratch scratch;
  while (from < subject.size()) {
    const auto* bytes = reinterpret_cast<PCRE2_SPTR>(subject.data());
    int count = pcre2_match(code_->compiled, bytes, subject.size(), from, PCRE2_NO_UTF_CHECK,
                            scratch.data, scratch.context);
    if (count == PCRE2_ERROR_JIT_STACKLIMIT) {
      count = pcre2_match(code_->compiled, bytes, subject.size(), from,
                          PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, scratch.data, scratch.context);
    }
    if (count == PCRE2_ERROR_NOMATCH) return std::nullopt;
    if (count < 0) {
      return absl::ResourceExhaustedError(
          fmt::format("the tokenizer's regular expression gave up: {}", ErrorText(count)));
    }
    const PCRE2_SIZE* offsets = pcre2_get_ovector_pointer(scratch.data);
    if (offsets[1] > offsets[0] && offsets[0] >= from) {
      return Match{.begin = offsets[0], .end = offsets[1]};
    }
    from += DecodeChar(subject.substr(from)).size;
  }
  return std::nullopt;
}

}  // namespace penstock::engine
