// What an engine says about its load, and the ways it says it: our own JSON
// line (pushed or polled) and ORCA's endpoint-load-metrics field (piggybacked).
//
// A figure that was not said is unknown, never zero. A report with any figure
// that cannot be (NaN, infinite, negative, absurdly large) is refused whole:
// half a report would steer traffic as badly as a wrong one.
//
// Threads: plain values and pure functions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "absl/status/statusor.h"
#include "lb-policies/policy.h"
#include "proxy/base/time.h"

namespace penstock {

enum class EngineState : uint8_t { kUnknown, kLoading, kReady, kDraining, kAsleep, kFailed };
std::string_view Name(EngineState state);
std::string_view Name(lb::Rung rung);

// Counts are totals of the engine's node. Negative: unknown.
struct LoadReport {
  static constexpr size_t kModelBytes = 62;

  uint64_t epoch = 0;            // Changes when the engine restarts; 0: not said.
  uint64_t seq = 0;              // Grows within an epoch.
  MonoTime arrived = 0;          // When the proxy read it.
  MonoTime made = 0;             // `arrived` less the age that the engine stated.
  uint64_t sent_mark = 0;        // Set by BackendState: requests sent there before `made`.
  uint64_t weights = 0;          // Identity of the model's weights; 0: unknown.
  float running = -1;
  float waiting = -1;
  float waiting_tokens = -1;     // Uncached prompt tokens not yet computed.
  float running_tokens = -1;
  float max_running = -1;
  float kv_blocks_used = -1;
  float kv_blocks_total = -1;
  float prefill_tokens_per_s = -1;
  float step_ms = -1;
  float ttft_ms_p50 = -1;
  lb::Rung rung = lb::Rung::kOwn;  // kOwn: there is no report.
  EngineState state = EngineState::kUnknown;
  char model[kModelBytes] = {};  // Ends with NUL; cut when longer.

  bool known() const { return rung != lb::Rung::kOwn; }
  bool has_total() const { return running >= 0 || waiting >= 0; }
  // Says that another request would start at once.
  bool has_room() const { return waiting == 0 && running >= 0 && running < max_running; }
  float kv_used() const { return kv_blocks_total > 0 ? kv_blocks_used / kv_blocks_total : -1; }
};
static_assert(sizeof(LoadReport) % sizeof(uint64_t) == 0);

inline constexpr MonoTime kPollDefault = kSecond;  // Interval where none is configured.
inline constexpr size_t kLoadLineMax = 16 * 1024;  // Longer lines and fields are refused.

// One line of GET /load, read at `now`. Errors name the key and what was found.
absl::StatusOr<LoadReport> ParseLoadLine(std::string_view line, lb::Rung rung, MonoTime now);

// The value of an endpoint-load-metrics field: "TEXT k=v, ...", "JSON {...}", or
// the TEXT list without its prefix. BIN is Unimplemented. Entries with unknown
// keys are ignored.
absl::StatusOr<LoadReport> ParseOrca(std::string_view field, MonoTime now);

}  // namespace penstock
