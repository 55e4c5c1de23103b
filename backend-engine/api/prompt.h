// From a checked request to token ids: the chat template, the tokenizer, and the
// model's limit on length. Pure, and slow for long prompts, so that long ones
// are prepared beside the event loop. What cannot fit is not read to its end.
#pragma once

#include <optional>
#include <vector>

#include "absl/time/time.h"
#include "backend-engine/api/api_error.h"
#include "backend-engine/api/openai_request.h"
#include "backend-engine/api/served_model.h"

namespace penstock::engine {

// What the answer to one request may take while it is not streamed, by estimate.
inline constexpr int64_t kWholeAnswerBytes = 32 << 20;

struct PreparedPrompt {
  TokenIds ids;
  int32_t max_tokens = 0;  // Of each answer to it.
  std::string echo;        // Text that the answer begins with; mostly empty.
};

// Any thread; `now` is for templates that name the date. Nothing on failure, and `error` says why.
std::optional<std::vector<PreparedPrompt>> PreparePrompts(const ServedModel& model,
                                                          const OpenAiRequest& request,
                                                          absl::Time now,
                                                          std::optional<ApiError>& error);

// How much text the request holds, ids by their memory, to tell short ones from long ones.
size_t TextBytes(const OpenAiRequest& request);

}  // namespace penstock::engine
