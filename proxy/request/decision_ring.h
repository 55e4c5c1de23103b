// Why each of the last requests went where it went: a fixed ring of records per
// worker, written on the hot path without allocating, read by the admin listener
// through a posted task.
//
// Threads: the worker's thread only.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/time/time.h"
#include "lb-policies/policy.h"
#include "proxy/backends/backend.h"

namespace penstock {

// Why a backend was looked for: the request is new, a try had failed, or one takes longer
// than most do.
enum class TryKind : uint8_t { kFirst, kRetry, kHedge };
inline constexpr std::array<std::string_view, 3> kTryKindNames = {"first", "retry", "hedge"};

struct DecisionRecord {
  static constexpr size_t kCandidates = 8;  // The best by score; `candidate_count` says how many there were.
  static constexpr size_t kIdBytes = 64;
  static constexpr size_t kNameBytes = 48;

  struct Entry {
    lb::Candidate candidate;
    lb::Terms terms;
    std::array<char, kNameBytes> name{};
  };

  std::array<char, kIdBytes> request_id{};
  std::array<char, kNameBytes> pool{};
  std::array<char, kNameBytes> algorithm{};
  absl::Time time;
  uint32_t attempt = 0;                     // 1: the first try of the request.
  TryKind kind = TryKind::kFirst;
  uint32_t candidate_count = 0;
  uint32_t entry_count = 0;
  lb::BackendId chosen = 0;
  std::array<Entry, kCandidates> entries;
};

class DecisionRing {
 public:
  explicit DecisionRing(uint32_t capacity) : records_(capacity) {}

  struct Choice {
    std::string_view request_id;
    std::string_view pool;
    std::string_view algorithm;
    absl::Time time;
    uint32_t attempt = 1;
    TryKind kind = TryKind::kFirst;
    std::span<const lb::Candidate> candidates;
    std::span<const lb::Terms> terms;       // As long as `candidates`.
    size_t chosen = 0;
  };
  void Add(const Choice& choice, const PoolState& pool);

  // JSON objects, oldest first; all tries of that request. Appends to `out`.
  void Find(std::string_view request_id, std::vector<std::string>& out) const;
  // The newest ones, newest first.
  void Newest(size_t count, std::vector<std::string>& out) const;

 private:
  std::vector<DecisionRecord> records_;
  uint64_t next_ = 0;
};

}  // namespace penstock
