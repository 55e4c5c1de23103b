// Answers in OpenAI's shapes: whole ones, the events of a stream, and errors.
// Appends text to a string; knows nothing of HTTP or of the engine.
//
// The role is sent together with the first text of a choice, so that the first
// event of a stream is also the first token.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "backend-engine/api/api_error.h"

namespace penstock::engine {

// One token with its bytes, which may be part of a character.
struct TokenText {
  std::string bytes;
  float logprob = 0;
};

struct TokenLogprobs {
  TokenText token;
  std::vector<TokenText> top;
  int64_t text_offset = 0;  // In characters from the start of the choice's text.
};

struct Usage {
  int64_t prompt_tokens = 0;
  int64_t completion_tokens = 0;
};

// What is the same in every line of one answer.
struct AnswerHead {
  bool chat = false;
  std::string id;
  int64_t created = 0;      // Seconds since 1970.
  std::string model;        // As the client spelt it.
  std::string fingerprint;  // Changes with the weights and how they are computed.
  bool include_usage = false;
  bool logprobs = false;
};

// One choice of a whole answer, or what a stream's next event adds to it.
struct ChoicePart {
  int32_t index = 0;
  std::string_view text;
  std::span<const TokenLogprobs> logprobs;  // Written if the head says so.
  bool first = false;                       // Nothing of this choice was sent before.
  std::string_view finish_reason;           // Empty: not finished.
};

class AnswerWriter {
 public:
  explicit AnswerWriter(AnswerHead head);

  // One event: "data: {...}\n\n".
  void AppendChunk(std::string& out, const ChoicePart& part) const;
  void AppendUsageChunk(std::string& out, const Usage& usage) const;
  static constexpr std::string_view kDone = "data: [DONE]\n\n";

  // A whole answer of all choices.
  std::string Whole(std::span<const ChoicePart> choices, const Usage& usage) const;

  const AnswerHead& head() const { return head_; }

 private:
  void AppendLogprobs(std::string& out, std::span<const TokenLogprobs> logprobs) const;

  AnswerHead head_;
  std::string opening_;  // {"id":... up to "choices":[ of a stream's events.
};

// {"error":{"message":...,"type":...,"param":...,"code":...}}
std::string ErrorJson(const ApiError& error);

}  // namespace penstock::engine
