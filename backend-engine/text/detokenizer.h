// Turns the tokens of one answer into text while they come, for streaming.
//
// A token may end inside a character, and a stop string may begin in one token
// and end three later. So text is given out as soon as, and not before, it is
// whole characters that cannot belong to a stop string any more.
//
// Threads: one answer, one thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "backend-engine/text/tokenizer.h"

namespace penstock::engine {

// Finds the first of some strings in a text that comes in parts; what it finds
// does not depend on where the parts are cut: the string that ends first
// counts, and of those the one that begins first.
class StopMatcher {
 public:
  // Empty strings are ignored.
  explicit StopMatcher(std::vector<std::string> stops);

  // Returns what may be shown now. After a match that is what came before the
  // stop string, and nothing more ever follows.
  std::string Push(std::string_view text);

  // The text has ended: what was held back.
  std::string Finish();

  bool stopped() const { return !matched_.empty(); }
  const std::string& matched() const { return matched_; }  // Empty until stopped().
  std::string_view held() const { return held_; }          // May still begin a stop string.

 private:
  std::vector<std::string> stops_;
  std::string held_;
  std::string matched_;
};

class Detokenizer {
 public:
  // Borrows the tokenizer.
  Detokenizer(const Tokenizer& tokenizer, std::vector<std::string> stops, bool skip_special);

  // Returns the text that this token completes, often empty.
  std::string Push(int32_t id);

  // No more tokens: returns what was held back; an unfinished character is
  // U+FFFD. Empty after a stop.
  std::string Finish();

  bool stopped() const { return matcher_.stopped(); }
  const std::string& matched_stop() const { return matcher_.matched(); }
  std::string_view held() const { return matcher_.held(); }  // Whole characters held back.

 private:
  const Tokenizer& tokenizer_;
  StopMatcher matcher_;
  bool skip_special_;
  std::string bytes_;  // The beginning of a character, at most 3 bytes.
};

}  // namespace penstock::engine
