// POST /v1/chat/completions and /v1/completions: from the client's JSON to a
// checked request. Everything that can be wrong is an ApiError that names the
// field, what was found and what is allowed; fields that we do not know are
// ignored, known ones that we could not honour are refused.
//
// Nothing here depends on the model but ParseLimits; text is not tokenised yet.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include <simdjson.h>

#include "backend-engine/api/api_error.h"
#include "backend-engine/sched/step.h"

namespace penstock::engine {

inline constexpr size_t kMessagesMax = 2048;
inline constexpr size_t kContentPartsMax = 256;  // Of one message.
inline constexpr size_t kPromptsMax = 32;
inline constexpr int64_t kChoicesMax = 8;        // n.
inline constexpr size_t kSequencesMax = 64;      // n times the prompts.
inline constexpr size_t kStopsMax = 4;
inline constexpr size_t kStopBytesMax = 256;
inline constexpr size_t kStopTokensMax = 64;
inline constexpr int64_t kLogprobsMax = 20;
inline constexpr size_t kLogitBiasMax = 1024;
inline constexpr size_t kModelNameBytesMax = 256;

// What the model says about requests.
struct RequestLimits {
  int32_t vocab_size = 0;
  SamplingParams defaults;  // Where a request says nothing (generation_config.json).
};

struct ChatMessage {
  std::string role;     // "system", "user", "assistant" or "tool".
  std::string content;  // The parts of a list, one after the other.
};

using TokenIds = std::vector<int32_t>;
using Prompt = std::variant<std::string, TokenIds>;

// What is asked of the answer, whatever the prompt.
struct AnswerSettings {
  bool chat = false;
  int32_t n = 1;
  std::optional<int32_t> max_tokens;
  SamplingParams sampling;
  std::optional<uint64_t> seed;  // Also in `sampling`, where given.
  std::vector<std::string> stop;
  std::vector<int32_t> stop_token_ids;  // Beside the model's own, also where those are ignored.
  int32_t min_tokens = 0;        // No stop token before so many; stop strings end the answer anyway.
  bool ignore_eos = false;
  bool stream = false;
  bool include_usage = false;
  bool echo = false;             // Completions: the prompt's text comes first.
};

struct OpenAiRequest {
  std::string model;
  std::vector<ChatMessage> messages;  // Chat: at least one.
  std::vector<Prompt> prompts;        // Completions: at least one, none of them empty.
  AnswerSettings settings;
};

// Nothing on failure, and `error` says why.
std::optional<OpenAiRequest> ParseChatRequest(simdjson::dom::object body,
                                              const RequestLimits& limits,
                                              std::optional<ApiError>& error);
std::optional<OpenAiRequest> ParseCompletionRequest(simdjson::dom::object body,
                                                    const RequestLimits& limits,
                                                    std::optional<ApiError>& error);

}  // namespace penstock::engine
