// A regular expression of a tokenizer file, run by PCRE2 (this is its one
// home) with the meaning that it has in Oniguruma, for which tokenizer files
// are written. A hostile expression cannot hang us: matching gives up at a
// limit and says so.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace penstock::engine {

// Threads: const use from any thread.
class Regex {
 public:
  struct Match {
    size_t begin;
    size_t end;
  };

  static absl::StatusOr<Regex> Compile(std::string_view pattern);
  // Matches `text` itself.
  static absl::StatusOr<Regex> Literal(std::string_view text);
  Regex(Regex&&) noexcept;
  Regex& operator=(Regex&&) noexcept;
  ~Regex();

  // The first match that starts at `from` or later and is not empty.
  // REQUIRES: `subject` is valid UTF-8 and `from` is the start of a character.
  absl::StatusOr<std::optional<Match>> Find(std::string_view subject, size_t from) const;

 private:
  struct Code;
  explicit Regex(std::unique_ptr<Code> code);
  static absl::StatusOr<Regex> CompileWith(std::string_view pattern, uint32_t options);

  std::unique_ptr<Code> code_;
};

// `pattern` with Oniguruma's \s, \S and \h spelt for PCRE2; exposed for tests.
std::string SpellForPcre2(std::string_view pattern);

}  // namespace penstock::engine
