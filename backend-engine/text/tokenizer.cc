#include "backend-engine/text/tokenizer.h"

#include <utility>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "absl/status/status.h"
#include "backend-engine/load/json_file.h"

namespace penstock::engine {
namespace {

using nlohmann::json;

constexpr size_t kTokenizerBytesMax = 128 << 20;
constexpr size_t kConfigBytesMax = 16 << 20;
constexpr size_t kAddedTokensMax = 100'000;
constexpr size_t kAddedTokenBytesMax = 1024;
constexpr size_t kAddedIdsMax = 16;
constexpr int kNestMax = 8;

absl::Status Wrong(const std::string& why) { return absl::InvalidArgumentError(why); }

const json& FieldOf(const json& object, const char* field) {
  static const json kNull;
  const auto found = object.is_object() ? object.find(field) : object.end();
  return object.is_object() && found != object.end() ? *found : kNull;
}

std::string TextOf(const json& object, const char* field) {
  const json& value = FieldOf(object, field);
  return value.is_string() ? value.get<std::string>() : std::string();
}

bool FlagOf(const json& object, const char* field) {
  const json& value = FieldOf(object, field);
  return value.is_boolean() && value.get<bool>();
}

// bos_token and its like are a string or an added token's object.
std::string TokenTextOf(const json& object, const char* field) {
  const json& value = FieldOf(object, field);
  return value.is_object() ? TextOf(value, "content") : TextOf(object, field);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::Load(const std::string& dir) {
  const std::string path = dir + "/tokenizer.json";
  const absl::StatusOr<std::string> text = ReadWholeFile(path, kTokenizerBytesMax);
  if (!text.ok()) return text.status();
  const absl::StatusOr<std::string> config =
      ReadWholeFile(dir + "/tokenizer_config.json", kConfigBytesMax);
  if (!config.ok() && !absl::IsNotFound(config.status())) return config.status();
  auto tokenizer = Parse(*text, config.ok() ? *config : "");
  if (!tokenizer.ok()) {
    return Wrong(fmt::format("{}: {}", path, std::string(tokenizer.status().message())));
  }
  return tokenizer;
}

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::Parse(std::string_view tokenizer_json,
                                                            std::string_view config_json) {
  const absl::StatusOr<json> document = ParseStrictJson(tokenizer_json, "tokenizer");
  if (!document.ok()) return document.status();
  absl::StatusOr<Bpe> bpe = Bpe::FromJson(FieldOf(*document, "model"));
  if (!bpe.ok()) return bpe.status();
  absl::StatusOr<PreTokenizer> pre = PreTokenizer::FromJson(FieldOf(*document, "pre_tokenizer"));
  if (!pre.ok()) return pre.status();
  std::unique_ptr<Tokenizer> out(new Tokenizer(std::move(*bpe), std::move(*pre)));
  if (absl::Status status = out->ReadNormalizer(FieldOf(*document, "normalizer"), 0); !status.ok()) {
    return status;
  }
  if (absl::Status status = out->ReadAddedTokens(FieldOf(*document, "added_tokens")); !status.ok()) {
    return status;
  }
  if (absl::Status status = out->ReadPostProcessor(FieldOf(*document, "post_processor"), 0);
      !status.ok()) {
    return status;
  }
  if (absl::Status status = out->ReadConfig(config_json); !status.ok()) return status;
  return out;
}

Tokenizer::Tokenizer(Bpe bpe, PreTokenizer pre_tokenizer)
    : bpe_(std::move(bpe)), pre_tokenizer_(std::move(pre_tokenizer)) {
  for (const std::string& bytes : bpe_.token_bytes()) tokens_.push_back({.bytes = bytes});
}

absl::Status Tokenizer::ReadNormalizer(const json& description, int depth) {
  if (description.is_null()) return absl::OkStatus();
  static constexpr std::pair<std::string_view, NormalForm> kForms[] = {
      {"NFC", NormalForm::kNfc},
      {"NFD", NormalForm::kNfd},
      {"NFKC", NormalForm::kNfkc},
      {"NFKD", NormalForm::kNfkd}};
  const std::string type = TextOf(description, "type");
  for (const auto& [name, form] : kForms) {
    if (name == type) {
      normal_forms_.push_back(form);
      return absl::OkStatus();
    }
  }
  const json& list = FieldOf(description, "normalizers");
  if (type != "Sequence" || !list.is_array() || depth > kNestMax || list.size() > kNestMax) {
    return Wrong(fmt::format("normalizer: type {}; supported: NFC, NFD, NFKC, NFKD, Sequence",
                             Quoted(type)));
  }
  for (const json& step : list) {
    if (absl::Status status = ReadNormalizer(step, depth + 1); !status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status Tokenizer::ReadAddedTokens(const json& list) {
  if (list.is_null()) return absl::OkStatus();
  if (!list.is_array() || list.size() > kAddedTokensMax) {
    return Wrong(fmt::format("added_tokens: expected a list of at most {}", kAddedTokensMax));
  }
  for (const json& entry : list) {
    const json& id = FieldOf(entry, "id");
    AddedToken token = {.content = TextOf(entry, "content"),
                        .special = FlagOf(entry, "special"),
                        .normalized = FlagOf(entry, "normalized"),
                        .lstrip = FlagOf(entry, "lstrip"),
                        .rstrip = FlagOf(entry, "rstrip"),
                        .single_word = FlagOf(entry, "single_word")};
    const std::string name = "added_tokens: " + Quoted(token.content);
    if (!id.is_number_unsigned() || id.get<uint64_t>() > kTokenIdMax) {
      return Wrong(fmt::format("{}: its id is not a number from 0 to {}", name, kTokenIdMax));
    }
    if (token.content.empty() || token.content.size() > kAddedTokenBytesMax) {
      return Wrong(fmt::format("{}: {} bytes; allowed: 1 to {}", name, token.content.size(),
                               kAddedTokenBytesMax));
    }
    token.id = id.get<int32_t>();
    const auto in_vocab = bpe_.vocab().find(token.content);
    const auto index = static_cast<size_t>(token.id);
    if (in_vocab != bpe_.vocab().end() && in_vocab->second != token.id) {
      return Wrong(fmt::format("{}: id {} here, {} in vocab", name, token.id, in_vocab->second));
    }
    const bool taken = index < tokens_.size() && !tokens_[index].bytes.empty();
    if (taken && in_vocab == bpe_.vocab().end()) {
      return Wrong(fmt::format("{}: id {} is already {}", name, token.id,
                               Quoted(tokens_[index].bytes)));
    }
    if (!added_ids_.try_emplace(token.content, token.id).second) {
      return Wrong(name + ": appears twice");
    }
    if (index >= tokens_.size()) tokens_.resize(index + 1);
    tokens_[index] = {.bytes = token.content, .special = token.special};
    const std::string normalized = NormalizeText(token.content);
    if (token.normalized && !normalized.empty()) {
      normalized_tokens_.Add(token, normalized);
    } else {
      raw_tokens_.Add(token, token.content);
    }
  }
  return absl::OkStatus();
}

absl::Status Tokenizer::ReadPostProcessor(const json& description, int depth) {
  if (description.is_null()) return absl::OkStatus();
  const std::string type = TextOf(description, "type");
  if (type == "ByteLevel") return absl::OkStatus();  // It moves offsets only.
  if (type == "TemplateProcessing") return ReadTemplate(description);
  const json& list = FieldOf(description, "processors");
  if (type != "Sequence" || !list.is_array() || depth > kNestMax || list.size() > kNestMax) {
    return Wrong(fmt::format(
        "post_processor: type {}; supported: ByteLevel, TemplateProcessing, Sequence",
        Quoted(type)));
  }
  for (const json& step : list) {
    if (absl::Status status = ReadPostProcessor(step, depth + 1); !status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status Tokenizer::ReadTemplate(const json& description) {
  const json& single = FieldOf(description, "single");
  const json& specials = FieldOf(description, "special_tokens");
  if (!single.is_array()) return Wrong("post_processor: TemplateProcessing: single is no list");
  bool after_text = false;
  for (const json& item : single) {
    if (FieldOf(item, "Sequence").is_object()) {
      after_text = true;
      continue;
    }
    const std::string name = TextOf(FieldOf(item, "SpecialToken"), "id");
    const json& ids = FieldOf(FieldOf(specials, name.c_str()), "ids");
    if (!ids.is_array() || ids.size() > kAddedIdsMax) {
      return Wrong(fmt::format("post_processor: {} has no ids in special_tokens", Quoted(name)));
    }
    for (const json& id : ids) {
      if (!id.is_number_unsigned() || id.get<uint64_t>() >= tokens_.size()) {
        return Wrong(fmt::format("post_processor: {} stands for an id that no token has",
                                 Quoted(name)));
      }
      auto& place = after_text ? suffix_ids_ : prefix_ids_;
      if (place.size() >= kAddedIdsMax) return Wrong("post_processor: too many special tokens");
      place.push_back(id.get<int32_t>());
    }
  }
  return absl::OkStatus();
}

// add_bos_token puts BOS in front even where tokenizer.json does not, as in
// the folders of DeepSeek.
absl::Status Tokenizer::ReadConfig(std::string_view config_json) {
  if (config_json.empty()) return absl::OkStatus();
  const absl::StatusOr<json> config = ParseStrictJson(config_json, "tokenizer_config.json");
  if (!config.ok()) return config.status();
  if (const std::string eos = TokenTextOf(*config, "eos_token"); !eos.empty()) eos_id_ = TokenId(eos);
  const auto add = [&](const char* flag, const char* field, std::vector<int32_t>& place) {
    if (!FlagOf(*config, flag) || !place.empty()) return absl::OkStatus();
    const std::string text = TokenTextOf(*config, field);
    const std::optional<int32_t> id = TokenId(text);
    if (!id.has_value()) {
      return Wrong(fmt::format("tokenizer_config.json: {} is true, but {} {} is no token", flag,
                               field, Quoted(text)));
    }
    place.push_back(*id);
    return absl::OkStatus();
  };
  if (absl::Status status = add("add_bos_token", "bos_token", prefix_ids_); !status.ok()) {
    return status;
  }
  return add("add_eos_token", "eos_token", suffix_ids_);
}

std::string Tokenizer::NormalizeText(std::string_view text) const {
  std::string out(text);
  for (const NormalForm form : normal_forms_) out = Normalize(out, form);
  return out;
}

std::string Tokenizer::NormalizedForSpecial(std::string_view text) const {
  return normalized_tokens_.empty() ? std::string(text) : NormalizeText(text);
}

absl::StatusOr<std::vector<int32_t>> Tokenizer::Encode(std::string_view text, bool add_special,
                                                       bool allow_special, size_t ids_max) const {
  if (text.size() > kEncodeBytesMax) {
    return Wrong(fmt::format("text of {} bytes; at most {} are tokenised", text.size(),
                             kEncodeBytesMax));
  }
  std::string repaired;
  if (!IsValidUtf8(text)) text = repaired = ReplaceInvalidUtf8(text);
  std::vector<int32_t> ids;
  if (add_special) ids = prefix_ids_;
  for (const AddedTokenFinder::Part& part : raw_tokens_.Split(text, allow_special)) {
    if (ids.size() > ids_max) return ids;
    if (part.id >= 0) {
      ids.push_back(part.id);
      continue;
    }
    absl::Status status = EncodeText(part.text, allow_special, ids_max, ids);
    if (!status.ok()) return status;
  }
  if (add_special) ids.insert(ids.end(), suffix_ids_.begin(), suffix_ids_.end());
  return ids;
}

// Text without raw added tokens.
absl::Status Tokenizer::EncodeText(std::string_view text, bool allow_special, size_t ids_max,
                                   std::vector<int32_t>& out) const {
  std::string normalized;
  if (!normal_forms_.empty()) text = normalized = NormalizeText(text);
  for (const AddedTokenFinder::Part& part : normalized_tokens_.Split(text, allow_special)) {
    if (out.size() > ids_max) return absl::OkStatus();
    if (part.id >= 0) {
      out.push_back(part.id);
      continue;
    }
    const auto pieces = pre_tokenizer_.Split(part.text, ids_max - out.size());
    if (!pieces.ok()) return pieces.status();
    for (const std::string_view piece : *pieces) {
      bpe_.Encode(piece, out);
      if (out.size() > ids_max) return absl::OkStatus();
    }
  }
  return absl::OkStatus();
}

std::string Tokenizer::Decode(std::span<const int32_t> ids, bool skip_special) const {
  std::string bytes;
  for (const int32_t id : ids) {
    if (!skip_special || !IsSpecial(id)) bytes += TokenBytes(id);
  }
  return ReplaceInvalidUtf8(bytes);
}

std::string_view Tokenizer::TokenBytes(int32_t id) const {
  if (id < 0 || id >= vocab_size()) return {};
  return tokens_[static_cast<size_t>(id)].bytes;
}

bool Tokenizer::IsSpecial(int32_t id) const {
  return id >= 0 && id < vocab_size() && tokens_[static_cast<size_t>(id)].special;
}

std::optional<int32_t> Tokenizer::TokenId(std::string_view token) const {
  const std::string key(token);
  if (const auto added = added_ids_.find(key); added != added_ids_.end()) return added->second;
  if (const auto found = bpe_.vocab().find(key); found != bpe_.vocab().end()) return found->second;
  return std::nullopt;
}

}  // namespace penstock::engine
