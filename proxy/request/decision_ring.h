// Why each of the last requests went where it went: a fixed ring of records per
// worker, written on the hot path without allocating, read by the admin listener
// through a posted task.
//
// Threads: the worker's thread only.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "lb-policies/policy.h"
#include "proxy/backends/backend.h"

namespace penstock {

// Why a backend was looked for: the request is new, a try had failed, or one takes longer
// than most do.
enum class TryKind : uint8_t { kFirst, kRetry, kHedge };
inline constexpr std::array<std::string_view, 3> kTryKindNames = {"first", "retry", "hedge"};

// What the records of one pool do not spell out again: its names, as they were.
struct DecisionNames {
  std::string pool, algorithm;
  std::vector<std::pair<lb::BackendId, std::string>> backends;
  bool operator==(const DecisionNames&) const = default;
};

class DecisionRing {
 public:
  static constexpr size_t kCandidates = 8;  // The best by score; `candidate_count` says how many there were.
  static constexpr size_t kIdBytes = 64;    // Of a request's id; what is longer is cut.
  static constexpr size_t kNamesMax = 256;  // A pool's changes; of records from before that, names are "?".

  explicit DecisionRing(uint32_t capacity);

  struct Choice {
    std::string_view request_id;
    absl::Time time;
    uint32_t attempt = 1;
    TryKind kind = TryKind::kFirst;
    std::span<const lb::Candidate> candidates;
    std::span<const lb::Terms> terms;       // As long as `candidates`.
    size_t chosen = 0;
  };
  // `names`: the caller keeps it beside `pool`, 0 at first.
  void Add(const Choice& choice, const PoolState& pool, uint32_t& names);

  // JSON objects, oldest first; all tries of that request. Appends to `out`.
  void Find(std::string_view request_id, std::vector<std::string>& out) const;
  // The newest ones, newest first.
  void Newest(size_t count, std::vector<std::string>& out) const;

 private:
  // A line of the processor's cache, and the rest of an id that is longer than ours.
  struct alignas(64) Head {
    static constexpr size_t kIdBegin = 36;
    int64_t time_ns;
    uint32_t names, attempt, candidate_count;
    lb::BackendId chosen;
    uint8_t id_size, entry_count;
    TryKind kind;
    char id[kIdBegin];
  };
  using IdEnd = std::array<char, kIdBytes - Head::kIdBegin>;
  struct Entry {  // As bytes: arrays of it are not written to before there is something to write.
    std::array<std::byte, sizeof(lb::Candidate)> candidate;
    std::array<std::byte, sizeof(lb::Terms)> terms;
  };
  std::string IdOf(size_t index) const;
  std::string ToJson(size_t index) const;
  uint32_t Learn(const PoolState& pool);
  void FetchForWriting(size_t index, size_t entry_count) const;

  const size_t capacity_;
  uint64_t next_ = 0;
  // By columns: records of few candidates lie close together, and the memory that a
  // request writes to is where the one before wrote.
  std::unique_ptr<Head[]> heads_;
  std::unique_ptr<IdEnd[]> id_ends_;
  std::array<std::unique_ptr<Entry[]>, kCandidates> entries_;  // First candidates, second ones, ...
  std::deque<DecisionNames> names_;
  uint32_t first_names_ = 1;            // The key of names_.front().
};

}  // namespace penstock
