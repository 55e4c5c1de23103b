// Text to token ids and back, as a tokenizer.json says: added tokens, then
// normalisation, pre-tokenizer, byte-level BPE, and what the post-processor
// puts around it. Whatever part of the file is not understood is refused by
// name when it is loaded; nothing is skipped in silence.
//
// Threads: const once loaded; any thread may use it.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "backend-engine/text/added_tokens.h"
#include "backend-engine/text/bpe.h"
#include "backend-engine/text/pre_tokenizer.h"
#include "backend-engine/text/unicode.h"

namespace penstock::engine {

inline constexpr size_t kEncodeBytesMax = 64 << 20;

class Tokenizer {
 public:
  // Reads tokenizer.json, and tokenizer_config.json where it exists (for
  // add_bos_token and eos_token), from a model folder.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Load(const std::string& dir);

  // The same from text; `config_json` may be empty.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Parse(std::string_view tokenizer_json,
                                                          std::string_view config_json);

  // `add_special`: with the ids that the post-processor adds (BOS); a rendered
  // chat template already holds them. `allow_special`: special tokens spelt in
  // the text become those tokens; otherwise they are ordinary text. Invalid
  // UTF-8 is read as U+FFFD. Stops soon once there are more than `ids_max`, so
  // that a text which is too long costs no more than one that just fits.
  absl::StatusOr<std::vector<int32_t>> Encode(std::string_view text, bool add_special,
                                              bool allow_special,
                                              size_t ids_max = PreTokenizer::kNoLimit) const;

  // How `text` reads when special tokens are looked for in it after
  // normalisation; as it is where none of them is.
  std::string NormalizedForSpecial(std::string_view text) const;

  // Valid UTF-8: bytes that are none become U+FFFD. Unknown ids are nothing.
  std::string Decode(std::span<const int32_t> ids, bool skip_special) const;

  // The bytes that the id stands for, which may be a part of a character;
  // empty for ids that do not exist.
  std::string_view TokenBytes(int32_t id) const;

  bool IsSpecial(int32_t id) const;

  // The id of a token spelt as in the file ("<|im_end|>").
  std::optional<int32_t> TokenId(std::string_view token) const;

  // The eos_token of tokenizer_config.json, where it is a token.
  std::optional<int32_t> eos_id() const { return eos_id_; }

  // One more than the largest id.
  int64_t vocab_size() const { return static_cast<int64_t>(tokens_.size()); }

 private:
  struct Token {
    std::string bytes;
    bool special = false;
  };

  Tokenizer(Bpe bpe, PreTokenizer pre_tokenizer);
  absl::Status ReadNormalizer(const nlohmann::json& description, int depth);
  absl::Status ReadAddedTokens(const nlohmann::json& list);
  absl::Status ReadPostProcessor(const nlohmann::json& description, int depth);
  absl::Status ReadTemplate(const nlohmann::json& description);
  absl::Status ReadConfig(std::string_view config_json);
  std::string NormalizeText(std::string_view text) const;
  absl::Status EncodeText(std::string_view text, bool allow_special, size_t ids_max,
                          std::vector<int32_t>& out) const;

  Bpe bpe_;
  PreTokenizer pre_tokenizer_;
  std::vector<NormalForm> normal_forms_;
  AddedTokenFinder raw_tokens_;         // Looked for in the text as it came.
  AddedTokenFinder normalized_tokens_;  // Looked for after normalisation.
  absl::flat_hash_map<std::string, int32_t> added_ids_;
  std::vector<Token> tokens_;
  std::vector<int32_t> prefix_ids_;     // Around the text where add_special.
  std::vector<int32_t> suffix_ids_;
  std::optional<int32_t> eos_id_;
};

}  // namespace penstock::engine
