// What goes into the engine and what comes out of it, at the level of tokens:
// shared by the scheduler, the engine thread and the API. Plain values.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "backend-engine/sched/step.h"

namespace penstock::engine {

struct GenerateRequest {
  std::vector<int32_t> prompt;       // At least one token.
  int32_t max_tokens = 16;           // Of the answer; at least 1.
  std::vector<int32_t> stop_tokens;  // End of sequence; not handed out as text.
  SamplingParams sampling;
  int32_t min_tokens = 0;            // Before so many, this mask stands in for
  std::shared_ptr<const std::vector<uint32_t>> early_allowed = nullptr;  // sampling.allowed.
};

enum class FinishReason : uint8_t { kNone, kStop, kLength, kCancelled, kFailed };

// One token of one sequence, or its end without a token (kCancelled, kFailed).
// With kStop, `token` is the stop token itself: counted, never shown.
struct TokenEvent {
  SequenceId id = 0;
  int32_t token = -1;  // -1: none with this event.
  FinishReason finish = FinishReason::kNone;
  float logprob = 0;
  std::vector<TokenLogprob> top;
  std::string error;  // For kFailed.
};

// kTooMany: more sequences in one request than the queue could ever take.
enum class SubmitCode { kOk, kQueueFull, kTooLong, kTooMany, kDraining, kFailed, kInvalid };

struct SubmitResult {
  SubmitCode code = SubmitCode::kOk;
  SequenceId id = 0;               // Of a group: the first one's; the others follow it.
  double retry_after_seconds = 0;  // For kQueueFull: from the measured drain rate.
  std::string message;             // For anything but kOk: what, found, allowed.
};

}  // namespace penstock::engine
