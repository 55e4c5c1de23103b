#include "backend-engine/text/bpe.h"

#include <algorithm>
#include <queue>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "absl/status/status.h"
#include "backend-engine/load/json_file.h"
#include "backend-engine/text/byte_level.h"
#include "backend-engine/text/unicode.h"

namespace penstock::engine {
namespace {

using nlohmann::json;

constexpr size_t kTokenBytesMax = 4096;
constexpr size_t kMergesMax = 4'000'000;

absl::Status Wrong(const std::string& why) {
  return absl::InvalidArgumentError("model: " + why);
}

uint64_t PairKey(int32_t left, int32_t right) {
  return static_cast<uint64_t>(left) << 32 | static_cast<uint32_t>(right);
}

// One token of the piece in the making; a list linked by index, so that a
// merge is constant time.
struct Symbol {
  int32_t id;
  int previous;
  int next;
  bool gone = false;
};

struct Candidate {
  uint32_t rank;
  int position;
  int32_t id;
  bool operator>(const Candidate& other) const {
    return std::pair(rank, position) > std::pair(other.rank, other.position);
  }
};

// "a b" in older files, ["a", "b"] in newer ones.
bool ReadPair(const json& merge, std::string& left, std::string& right) {
  if (merge.is_array()) {
    if (merge.size() != 2 || !merge[0].is_string() || !merge[1].is_string()) return false;
    left = merge[0].get<std::string>();
    right = merge[1].get<std::string>();
    return true;
  }
  if (!merge.is_string()) return false;
  const std::string& text = merge.get_ref<const std::string&>();
  const size_t space = text.find(' ');
  if (space == std::string::npos || text.find(' ', space + 1) != std::string::npos) return false;
  left = text.substr(0, space);
  right = text.substr(space + 1);
  return true;
}

bool IsSet(const json& object, const char* field) {
  const auto found = object.find(field);
  if (found == object.end() || found->is_null()) return false;
  return !(found->is_string() && found->get_ref<const std::string&>().empty()) &&
         !(found->is_boolean() && !found->get<bool>());
}

}  // namespace

absl::StatusOr<Bpe> Bpe::FromJson(const json& description) {
  if (!description.is_object()) return Wrong("missing; expected a byte-level BPE");
  const auto type = description.find("type");
  if (type != description.end() && *type != "BPE") {
    return Wrong(fmt::format("type {}; supported: BPE",
                             type->is_string() ? Quoted(type->get<std::string>()) : "unknown"));
  }
  for (const char* field : {"byte_fallback", "dropout", "continuing_subword_prefix",
                            "end_of_word_suffix"}) {
    if (IsSet(description, field)) {
      return Wrong(fmt::format("{} is set; only plain byte-level BPE is supported", field));
    }
  }
  Bpe out;
  out.ignore_merges_ = IsSet(description, "ignore_merges");
  const auto vocab = description.find("vocab");
  const auto merges = description.find("merges");
  if (vocab == description.end() || !vocab->is_object()) return Wrong("vocab is no object");
  if (merges == description.end() || !merges->is_array()) return Wrong("merges is no list");
  if (absl::Status status = out.ReadVocab(*vocab); !status.ok()) return status;
  if (absl::Status status = out.ReadMerges(*merges); !status.ok()) return status;
  return out;
}

absl::Status Bpe::ReadVocab(const json& vocab) {
  vocab_.reserve(vocab.size());
  id_of_bytes_.reserve(vocab.size());
  std::vector<bool> taken;
  for (const auto& [token, id_json] : vocab.items()) {
    if (!id_json.is_number_unsigned() || id_json.get<uint64_t>() > kTokenIdMax) {
      return Wrong(fmt::format("vocab: {} has the id {}; allowed: 0 to {}", Quoted(token),
                               id_json.is_number() ? id_json.dump() : "(no number)", kTokenIdMax));
    }
    if (token.empty() || token.size() > kTokenBytesMax) {
      return Wrong(fmt::format("vocab: a token of {} bytes; allowed: 1 to {}", token.size(),
                               kTokenBytesMax));
    }
    const auto id = id_json.get<int32_t>();
    const auto index = static_cast<size_t>(id);
    if (index >= token_bytes_.size()) {
      token_bytes_.resize(index + 1);
      taken.resize(index + 1);
    }
    if (taken[index]) return Wrong(fmt::format("vocab: two tokens have the id {}", id));
    taken[index] = true;
    vocab_[token] = id;
    std::optional<std::string> bytes = BytesOfToken(token);
    if (bytes.has_value()) id_of_bytes_[*bytes] = id;
    token_bytes_[index] = bytes.has_value() ? *bytes : token;
  }
  for (int byte = 0; byte < 256; ++byte) {
    const auto found = id_of_bytes_.find(std::string(1, static_cast<char>(byte)));
    if (found == id_of_bytes_.end()) {
      return Wrong(fmt::format("vocab: no token for byte 0x{:02x}; a byte-level one has all 256",
                               byte));
    }
    byte_ids_[byte] = found->second;
  }
  return absl::OkStatus();
}

absl::Status Bpe::ReadMerges(const json& merges) {
  if (merges.size() > kMergesMax) return Wrong(fmt::format("{} merges", merges.size()));
  merges_.reserve(merges.size());
  uint32_t rank = 0;
  std::string left;
  std::string right;
  for (const json& merge : merges) {
    if (!ReadPair(merge, left, right)) {
      return Wrong(fmt::format("merges[{}]: expected \"a b\" or [\"a\", \"b\"]", rank));
    }
    int32_t ids[3];
    const std::string parts[3] = {left, right, left + right};
    for (int i = 0; i < 3; ++i) {
      const auto found = vocab_.find(parts[i]);
      if (found == vocab_.end()) {
        return Wrong(fmt::format("merges[{}]: {} is not in vocab", rank, Quoted(parts[i])));
      }
      ids[i] = found->second;
    }
    merges_[PairKey(ids[0], ids[1])] = {.rank = rank++, .id = ids[2]};
  }
  return absl::OkStatus();
}

const Bpe::Merge* Bpe::FindMerge(int32_t left, int32_t right) const {
  const auto found = merges_.find(PairKey(left, right));
  return found == merges_.end() ? nullptr : &found->second;
}

void Bpe::Encode(std::string_view piece, std::vector<int32_t>& out) const {
  if (piece.empty()) return;
  if (ignore_merges_) {
    const auto whole = id_of_bytes_.find(std::string(piece));
    if (whole != id_of_bytes_.end()) {
      out.push_back(whole->second);
      return;
    }
  }
  const int count = static_cast<int>(piece.size());
  std::vector<Symbol> symbols(piece.size());
  for (int i = 0; i < count; ++i) {
    symbols[static_cast<size_t>(i)] = {.id = byte_ids_[static_cast<uint8_t>(piece[i])],
                                       .previous = i - 1,
                                       .next = i + 1 < count ? i + 1 : -1};
  }
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> queue;
  const auto offer = [&](int position) {
    if (position < 0 || symbols[static_cast<size_t>(position)].next < 0) return;
    const Symbol& left = symbols[static_cast<size_t>(position)];
    const Symbol& right = symbols[static_cast<size_t>(left.next)];
    if (const Merge* merge = FindMerge(left.id, right.id)) {
      queue.push({.rank = merge->rank, .position = position, .id = merge->id});
    }
  };
  for (int i = 0; i + 1 < count; ++i) offer(i);
  while (!queue.empty()) {
    const Candidate best = queue.top();
    queue.pop();
    Symbol& left = symbols[static_cast<size_t>(best.position)];
    if (left.gone || left.next < 0) continue;
    Symbol& right = symbols[static_cast<size_t>(left.next)];
    // An entry is stale once either side has merged with something else.
    const Merge* merge = FindMerge(left.id, right.id);
    if (merge == nullptr || merge->id != best.id) continue;
    left.id = best.id;
    right.gone = true;
    left.next = right.next;
    if (left.next >= 0) symbols[static_cast<size_t>(left.next)].previous = best.position;
    offer(left.previous);
    offer(best.position);
  }
  for (int i = 0; i >= 0; i = symbols[static_cast<size_t>(i)].next) {
    out.push_back(symbols[static_cast<size_t>(i)].id);
  }
}

}  // namespace penstock::engine
