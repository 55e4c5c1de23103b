// A load-balancing policy: given one request and the backends that could take
// it, say which backend should.
//
// A policy decides; it does nothing else. It opens no socket, reads no clock,
// draws no random numbers of its own, logs nothing, allocates nothing and never
// blocks, so the same call always gives the same answer. Load, health and
// latency are remembered by the backend's state and handed in; a policy that
// needs memory of its own (round_robin) says so in policies.def.
//
// Threads: each worker owns its own instance. No locking, no sharing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

namespace penstock::lb {

// Names one backend for as long as the process lives; never reused.
using BackendId = uint32_t;

// Where a candidate's queue figures come from, best first. See docs/lb-policies.md.
enum class Rung : uint8_t { kPush = 1, kPiggyback = 2, kPoll = 3, kOwn = 4 };

// What a policy may know about one request. Views are valid during the call.
struct RequestInfo {
  uint64_t random = 0;                    // One fresh random word: ties, samples.
  std::string_view model = {};            // Empty for requests that are not inference.
  uint32_t prompt_tokens = 0;             // Estimate; 0: unknown.
  std::span<const uint64_t> prefix = {};  // Chained prompt-block hashes; filled only for
                                          // policies marked kPrefix.
};

// What a policy may know about one candidate. Every candidate handed in may take
// the request: health, breakers and limits belong to the caller.
struct Candidate {
  BackendId id = 0;
  float weight = 1;             // Above 0.
  float slow_start = 1;         // Above 0, up to 1: share of its weight a new backend gets.

  float ttft_s = -1;            // Peak-EWMA of the time to first token; negative: no data.
  float ttft_age_s = -1;        // Of its last observation, for the record; negative: no data.
  float oldest_wait_s = 0;      // Age of the oldest request there without a first token.

  Rung rung = Rung::kOwn;       // Of `reported_total` and the figures below it.
  float reported_total = 0;     // Waiting + running on the whole node; for rungs 1 to 3.
  float max_running = 0;        // 0: unknown.
  float kv_used = -1;           // Share of KV blocks in use, 0 to 1; negative: unknown.
  float report_age_s = -1;      // For the record; negative: there is none.

  float sent_since = 0;         // Sent by this proxy since that report was made.
  float inflight = 0;           // Open there from this proxy, all workers together.
  float prefix_tokens = 0;      // Prompt tokens that its cache already holds; 0: unknown.
};

// The terms of one candidate's score, for the decision record. A policy fills
// what it used and leaves the rest.
struct Terms {
  float score = 0;
  float latency = 0;   // L_i
  float queue = 0;     // Q_i
  float kv = 0;
  float prefix = 0;
  float t_s = 0;       // T_i
  float u = 0;         // u_i
};

class Policy {
 public:
  virtual ~Policy() = default;

  // Returns an index into `candidates`, or nullopt to refuse the request.
  // `terms_out` is empty or as long as `candidates`.
  // REQUIRES: `candidates` is not empty and holds each id at most once.
  virtual std::optional<size_t> Pick(const RequestInfo& request,
                                     std::span<const Candidate> candidates,
                                     std::span<Terms> terms_out) = 0;
};

// What a policy asks of its caller.
enum Needs : uint32_t { kNothing = 0, kMemory = 1, kPrefix = 2 };

// A policy's own settings, as the policy file spells them.
using Params = std::vector<std::pair<std::string, std::string>>;

struct PolicyInfo {
  std::string_view name;
  uint32_t needs = kNothing;
  std::string_view sentence;  // For --help and docs/lb-policies.md.
};

// Every policy there is, in the order of policies.def.
std::span<const PolicyInfo> Policies();

// Errors: an unknown name (lists the known ones, suggests the nearest), an
// unknown or unparsable parameter (names it, what was found, what is allowed).
absl::StatusOr<std::unique_ptr<Policy>> MakePolicy(std::string_view name, const Params& params);

}  // namespace penstock::lb
