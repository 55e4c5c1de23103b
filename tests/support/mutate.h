// Changes a few things in an input, as a fuzzer does: for parsers' seeded tests.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "proxy/base/random.h"

namespace penstock {

// One of `corpus`, with up to four small changes; `words` are bytes worth putting in.
inline std::string Mutate(Random& random, const std::vector<std::string>& corpus,
                          const std::vector<std::string>& words) {
  const auto any = [&](size_t n) {
    return static_cast<size_t>(random.Below(static_cast<uint32_t>(n)));
  };
  std::string text = corpus[any(corpus.size())];
  for (size_t changes = any(5); changes > 0; --changes) {
    const size_t at = any(text.size() + 1);
    switch (any(5)) {
      case 0:
        text.erase(at, 1 + any(8));
        break;
      case 1:
        text.insert(at, words[any(words.size())]);
        break;
      case 2:
        if (at < text.size()) text[at] = static_cast<char>(random.Next());
        break;
      case 3:
        text.insert(at, text.substr(any(text.size() + 1), any(40)));
        break;
      default: {
        const std::string& other = corpus[any(corpus.size())];
        text = text.substr(0, at) + other.substr(any(other.size() + 1));
      }
    }
  }
  return text;
}

}  // namespace penstock
