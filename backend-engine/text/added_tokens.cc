#include "backend-engine/text/added_tokens.h"

#include <algorithm>

#include "backend-engine/text/unicode.h"

namespace penstock::engine {
namespace {

// The character that ends at `at`, or U+FFFD at the start.
char32_t CharBefore(std::string_view text, size_t at, size_t& begin) {
  begin = at;
  if (at == 0) return kReplacement;
  do {
    --begin;
  } while (begin > 0 && (static_cast<unsigned char>(text[begin]) & 0xC0) == 0x80);
  return DecodeChar(text.substr(begin, at - begin)).code;
}

bool WordTouches(std::string_view text, size_t begin, size_t end) {
  size_t ignored = 0;
  return (begin > 0 && IsWord(CharBefore(text, begin, ignored))) ||
         (end < text.size() && IsWord(DecodeChar(text.substr(end)).code));
}

}  // namespace

void AddedTokenFinder::Add(const AddedToken& token, std::string_view spelling) {
  int node = 0;
  for (const char c : spelling) {
    const auto byte = static_cast<unsigned char>(c);
    auto& children = nodes_[static_cast<size_t>(node)].children;
    const auto found = std::find_if(children.begin(), children.end(),
                                    [byte](const auto& child) { return child.first == byte; });
    if (found != children.end()) {
      node = found->second;
      continue;
    }
    const int fresh = static_cast<int>(nodes_.size());
    children.emplace_back(byte, fresh);
    nodes_.emplace_back();
    node = fresh;
  }
  nodes_[static_cast<size_t>(node)].token = static_cast<int>(tokens_.size());
  tokens_.push_back(token);
}

int AddedTokenFinder::LongestAt(std::string_view text, size_t at, size_t& end) const {
  int best = -1;
  int node = 0;
  for (size_t i = at; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    const auto& children = nodes_[static_cast<size_t>(node)].children;
    const auto found = std::find_if(children.begin(), children.end(),
                                    [byte](const auto& child) { return child.first == byte; });
    if (found == children.end()) break;
    node = found->second;
    if (nodes_[static_cast<size_t>(node)].token >= 0) {
      best = nodes_[static_cast<size_t>(node)].token;
      end = i + 1;
    }
  }
  return best;
}

AddedTokenFinder::Part AddedTokenFinder::LongestAt(std::string_view text, size_t at) const {
  size_t end = at;
  const int index = LongestAt(text, at, end);
  if (index < 0) return {};
  return {.text = text.substr(at, end - at), .id = tokens_[static_cast<size_t>(index)].id};
}

std::vector<AddedTokenFinder::Part> AddedTokenFinder::Split(std::string_view text,
                                                            bool allow_special) const {
  std::vector<Part> parts;
  size_t done = 0;
  size_t at = 0;
  while (at < text.size()) {
    size_t end = 0;
    const int index = LongestAt(text, at, end);
    if (index < 0) {
      ++at;
      continue;
    }
    const AddedToken& token = tokens_[static_cast<size_t>(index)];
    size_t begin = at;
    at = end;  // A match that does not count still hides what it covers.
    if (token.special && !allow_special) continue;
    if (token.single_word && WordTouches(text, begin, end)) continue;
    for (size_t before = 0; token.lstrip && begin > done; begin = before) {
      if (!IsSpace(CharBefore(text, begin, before))) break;
    }
    while (token.rstrip && end < text.size()) {
      const DecodedChar next = DecodeChar(text.substr(end));
      if (!IsSpace(next.code)) break;
      end += next.size;
    }
    if (begin > done) parts.push_back({.text = text.substr(done, begin - done)});
    parts.push_back({.text = text.substr(begin, end - begin), .id = token.id});
    done = at = end;
  }
  if (done < text.size()) parts.push_back({.text = text.substr(done)});
  return parts;
}

}  // namespace penstock::engine
