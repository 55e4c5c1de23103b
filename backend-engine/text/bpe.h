// Byte-pair encoding: the "model" of a tokenizer.json. Tokens are kept as the
// bytes that they stand for, so that text needs no mapping on the way in.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"

namespace penstock::engine {

inline constexpr int64_t kTokenIdMax = (1 << 22) - 1;

// Threads: const use from any thread.
class Bpe {
 public:
  static absl::StatusOr<Bpe> FromJson(const nlohmann::json& description);

  // Appends the tokens of one piece. Merges the pair of least rank first, and
  // the leftmost of equals; n log n in the length of the piece.
  void Encode(std::string_view piece, std::vector<int32_t>& out) const;

  // Token -> id, spelt as in the file.
  const absl::flat_hash_map<std::string, int32_t>& vocab() const { return vocab_; }

  // The bytes of each token by id; empty where there is no such id.
  const std::vector<std::string>& token_bytes() const { return token_bytes_; }

 private:
  struct Merge {
    uint32_t rank;
    int32_t id;
  };

  absl::Status ReadVocab(const nlohmann::json& vocab);
  absl::Status ReadMerges(const nlohmann::json& merges);
  const Merge* FindMerge(int32_t left, int32_t right) const;

  absl::flat_hash_map<std::string, int32_t> vocab_;
  absl::flat_hash_map<std::string, int32_t> id_of_bytes_;
  std::vector<std::string> token_bytes_;
  absl::flat_hash_map<uint64_t, Merge> merges_;  // Key: left id, right id.
  int32_t byte_ids_[256] = {};
  bool ignore_merges_ = false;
};

}  // namespace penstock::engine
