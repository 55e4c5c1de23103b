#include "backend-engine/text/detokenizer.h"

#include <algorithm>
#include <utility>

#include "backend-engine/text/unicode.h"

namespace penstock::engine {

StopMatcher::StopMatcher(std::vector<std::string> stops) : stops_(std::move(stops)) {
  std::erase_if(stops_, [](const std::string& stop) { return stop.empty(); });
}

std::string StopMatcher::Push(std::string_view text) {
  if (stopped()) return {};
  if (stops_.empty()) return std::string(text);
  held_ += text;

  size_t best_begin = std::string::npos;
  const std::string* best = nullptr;
  for (const std::string& stop : stops_) {
    const size_t begin = held_.find(stop);
    if (begin == std::string::npos) continue;
    if (best == nullptr ||
        std::pair(begin + stop.size(), begin) < std::pair(best_begin + best->size(), best_begin)) {
      best_begin = begin;
      best = &stop;
    }
  }
  if (best != nullptr) {
    matched_ = *best;
    return std::exchange(held_, {}).substr(0, best_begin);
  }

  // Hold back the longest tail that begins a stop string.
  size_t keep = 0;
  for (const std::string& stop : stops_) {
    for (size_t size = std::min(stop.size() - 1, held_.size()); size > keep; --size) {
      if (std::string_view(held_).ends_with(std::string_view(stop).substr(0, size))) keep = size;
    }
  }
  std::string out = held_.substr(0, held_.size() - keep);
  held_.erase(0, out.size());
  return out;
}

std::string StopMatcher::Finish() { return stopped() ? std::string() : std::exchange(held_, {}); }

Detokenizer::Detokenizer(const Tokenizer& tokenizer, std::vector<std::string> stops,
                         bool skip_special)
    : tokenizer_(tokenizer), matcher_(std::move(stops)), skip_special_(skip_special) {}

std::string Detokenizer::Push(int32_t id) {
  if (skip_special_ && tokenizer_.IsSpecial(id)) return {};
  bytes_ += tokenizer_.TokenBytes(id);
  std::string text;
  std::string_view rest = bytes_;
  while (!rest.empty()) {
    const DecodedChar next = DecodeChar(rest);
    if (next.truncated) break;
    AppendChar(next.code, text);
    rest.remove_prefix(next.size);
  }
  bytes_ = std::string(rest);
  return text.empty() ? text : matcher_.Push(text);
}

std::string Detokenizer::Finish() {
  std::string out;
  if (!std::exchange(bytes_, {}).empty()) {
    std::string last;
    AppendChar(kReplacement, last);
    out = matcher_.Push(last);
  }
  return out + matcher_.Finish();
}

}  // namespace penstock::engine
