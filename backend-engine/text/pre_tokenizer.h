// Cuts text into the pieces inside which BPE merges: the "pre_tokenizer" of a
// tokenizer.json. Understood: Sequence, Split (regular expression or string,
// every behaviour, invert), Digits, and ByteLevel as the last of them; others
// are refused by name.
#pragma once

#include <cstddef>
#include <string_view>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "absl/status/statusor.h"
#include "backend-engine/text/regex.h"

namespace penstock::engine {

// Threads: const use from any thread.
class PreTokenizer {
 public:
  static absl::StatusOr<PreTokenizer> FromJson(const nlohmann::json& description);

  // The pieces are views into `text`, in order; with behaviour Removed some
  // bytes are in none. Once there are more than `pieces_max` the rest of the text
  // may be left out. REQUIRES: valid UTF-8.
  absl::StatusOr<std::vector<std::string_view>> Split(std::string_view text,
                                                      size_t pieces_max = kNoLimit) const;

  static constexpr size_t kNoLimit = static_cast<size_t>(-1);

 private:
  enum class Behavior { kIsolated, kRemoved, kMergedWithPrevious, kMergedWithNext, kContiguous };
  struct Step {
    Regex regex;
    Behavior behavior = Behavior::kIsolated;
    bool invert = false;
  };

  absl::Status Add(const nlohmann::json& description, int depth);
  absl::Status AddSplit(const nlohmann::json& description);
  absl::Status AddRegex(std::string_view pattern);
  static absl::Status Cut(const Step& step, std::string_view piece, size_t pieces_max,
                          std::vector<std::string_view>& out);

  std::vector<Step> steps_;
  bool byte_level_ = false;
};

}  // namespace penstock::engine
