// Tokens that are found in the text before anything else looks at it: the
// "added_tokens" of a tokenizer.json, such as <|im_end|>.
//
// Leftmost first, the longest of those; lstrip and rstrip swallow the white
// space beside them, single_word asks for a word boundary on both sides.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace penstock::engine {

struct AddedToken {
  int32_t id = 0;
  std::string content;
  bool special = false;      // Not found unless the caller allows it; skipped in answers.
  bool normalized = false;   // Looked for after normalisation, not before.
  bool lstrip = false;
  bool rstrip = false;
  bool single_word = false;
};

// Threads: const use from any thread.
class AddedTokenFinder {
 public:
  struct Part {
    std::string_view text;
    int32_t id = -1;  // -1: ordinary text.
  };

  // `spelling` is what is looked for: the content, perhaps normalised.
  // REQUIRES: it is not empty.
  void Add(const AddedToken& token, std::string_view spelling);

  bool empty() const { return tokens_.empty(); }

  // The parts cover `text` in order; none is empty.
  std::vector<Part> Split(std::string_view text, bool allow_special) const;

  // The longest token spelt at `at`, whatever its flags; else nothing: no text, id -1.
  Part LongestAt(std::string_view text, size_t at) const;

 private:
  // A trie over bytes.
  struct Node {
    std::vector<std::pair<unsigned char, int>> children;  // Few: searched in order.
    int token = -1;
  };

  int LongestAt(std::string_view text, size_t at, size_t& end) const;

  std::vector<AddedToken> tokens_;
  std::vector<Node> nodes_ = std::vector<Node>(1);
};

}  // namespace penstock::engine
