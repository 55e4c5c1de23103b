// Characters as the tokenizer and the templates see them: UTF-8 in and out,
// properties and normalisation from utf8proc, whose one home this is.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace penstock::engine {

inline constexpr char32_t kReplacement = 0xFFFD;

// One character read from `text`, which is not empty. Where the bytes are no
// character, `valid` is false and `size` is the length of the longest prefix
// that could have begun one (at least 1), as the Unicode standard recommends
// to replace by one U+FFFD. `truncated`: the text ended inside a character.
struct DecodedChar {
  char32_t code = kReplacement;
  size_t size = 1;
  bool valid = false;
  bool truncated = false;
};
DecodedChar DecodeChar(std::string_view text);

void AppendChar(char32_t code, std::string& out);

bool IsValidUtf8(std::string_view text);
// Each invalid sequence becomes one U+FFFD.
std::string ReplaceInvalidUtf8(std::string_view text);

// White space of the Unicode property (regular expressions' \s).
bool IsSpace(char32_t code);
// A character of a word (\w): letters, marks, digits, connectors, joiners.
bool IsWord(char32_t code);
bool IsLetter(char32_t code);
bool IsDigit(char32_t code);      // Decimal digits of any script (Nd).
bool IsNumber(char32_t code);     // Nd, Nl, No.
bool IsUpper(char32_t code);
bool IsLower(char32_t code);
bool IsPrintable(char32_t code);  // Neither control, unassigned, nor space other than ' '.
char32_t ToUpper(char32_t code);
char32_t ToLower(char32_t code);
char32_t ToTitle(char32_t code);

enum class NormalForm { kNfc, kNfd, kNfkc, kNfkd };

// REQUIRES: valid UTF-8. Linear but for the sorting of runs of combining marks.
std::string Normalize(std::string_view text, NormalForm form);

}  // namespace penstock::engine
