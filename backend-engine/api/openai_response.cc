#include "backend-engine/api/openai_response.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>

#include "backend-engine/api/json_text.h"
#include "backend-engine/text/unicode.h"

namespace penstock::engine {
namespace {

void AppendUsage(std::string& out, const Usage& usage) {
  fmt::format_to(std::back_inserter(out),
                 R"("usage":{{"prompt_tokens":{},"completion_tokens":{},"total_tokens":{}}})",
                 usage.prompt_tokens, usage.completion_tokens,
                 usage.prompt_tokens + usage.completion_tokens);
}

// Everything before "choices"; `object` is the kind of document.
std::string Opening(const AnswerHead& head, std::string_view object) {
  std::string out = R"({"id":)";
  AppendJsonString(out, head.id);
  fmt::format_to(std::back_inserter(out), R"(,"object":"{}","created":{},"model":)", object,
                 head.created);
  AppendJsonString(out, head.model);
  out += R"(,"system_fingerprint":)";
  AppendJsonString(out, head.fingerprint);
  out += R"(,"choices":[)";
  return out;
}

// JSON has no minus infinity; a token that cannot be drawn gets what other servers send.
void AppendLogprob(std::string& out, float logprob) {
  AppendJsonNumber(out, std::max(logprob, -9999.0f));
}

void AppendChatToken(std::string& out, const TokenText& token) {
  out += R"({"token":)";
  AppendJsonString(out, token.bytes);
  out += R"(,"logprob":)";
  AppendLogprob(out, token.logprob);
  out += R"(,"bytes":[)";
  for (size_t index = 0; index < token.bytes.size(); ++index) {
    fmt::format_to(std::back_inserter(out), "{}{}", index > 0 ? "," : "",
                   static_cast<unsigned>(static_cast<uint8_t>(token.bytes[index])));
  }
  out += ']';
}

void AppendChatLogprobs(std::string& out, std::span<const TokenLogprobs> logprobs) {
  out += R"({"content":[)";
  for (size_t index = 0; index < logprobs.size(); ++index) {
    if (index > 0) out += ',';
    AppendChatToken(out, logprobs[index].token);
    out += R"(,"top_logprobs":[)";
    for (size_t rank = 0; rank < logprobs[index].top.size(); ++rank) {
      if (rank > 0) out += ',';
      AppendChatToken(out, logprobs[index].top[rank]);
      out += '}';
    }
    out += "]}";
  }
  out += R"(],"refusal":null})";
}

// A token as a key: no two tokens share one. Bytes that are no text by themselves
// would all read as U+FFFD.
std::string Spelling(std::string_view bytes) {
  if (IsValidUtf8(bytes)) return std::string(bytes);
  std::string out = "bytes:";
  for (const char c : bytes) {
    fmt::format_to(std::back_inserter(out), "\\x{:02x}", static_cast<unsigned>(static_cast<uint8_t>(c)));
  }
  return out;
}

// The most likely tokens, and the one that was drawn also where it is none of them.
void AppendTopTokens(std::string& out, const TokenLogprobs& entry) {
  out += '{';
  bool drawn_told = false;
  const auto append = [&out](const TokenText& token) {
    if (out.back() != '{') out += ',';
    AppendJsonString(out, Spelling(token.bytes));
    out += ':';
    AppendLogprob(out, token.logprob);
  };
  for (const TokenText& token : entry.top) {
    append(token);
    drawn_told = drawn_told || token.bytes == entry.token.bytes;
  }
  if (!drawn_told) append(entry.token);
  out += '}';
}

// Four lists side by side, one entry a token.
void AppendCompletionLogprobs(std::string& out, std::span<const TokenLogprobs> logprobs) {
  std::string tokens, values, tops, offsets;
  for (const TokenLogprobs& entry : logprobs) {
    if (!tokens.empty()) {
      for (std::string* list : {&tokens, &values, &tops, &offsets}) *list += ',';
    }
    AppendJsonString(tokens, Spelling(entry.token.bytes));
    AppendLogprob(values, entry.token.logprob);
    AppendTopTokens(tops, entry);
    offsets += fmt::format("{}", entry.text_offset);
  }
  fmt::format_to(std::back_inserter(out),
                 R"({{"tokens":[{}],"token_logprobs":[{}],"top_logprobs":[{}],"text_offset":[{}]}})",
                 tokens, values, tops, offsets);
}

void AppendFinishReason(std::string& out, std::string_view reason) {
  out += R"(,"finish_reason":)";
  if (reason.empty()) {
    out += "null";
  } else {
    AppendJsonString(out, reason);
  }
}

}  // namespace

AnswerWriter::AnswerWriter(AnswerHead head)
    : head_(std::move(head)),
      opening_("data: " + Opening(head_, head_.chat ? "chat.completion.chunk" : "text_completion")) {}

void AnswerWriter::AppendLogprobs(std::string& out, std::span<const TokenLogprobs> logprobs) const {
  out += R"(,"logprobs":)";
  if (!head_.logprobs) {
    out += "null";
  } else if (head_.chat) {
    AppendChatLogprobs(out, logprobs);
  } else {
    AppendCompletionLogprobs(out, logprobs);
  }
}

void AnswerWriter::AppendChunk(std::string& out, const ChoicePart& part) const {
  out += opening_;
  fmt::format_to(std::back_inserter(out), R"({{"index":{},)", part.index);
  if (head_.chat) {
    out += R"("delta":{)";
    if (part.first) out += R"("role":"assistant",)";
    if (part.first || !part.text.empty()) {
      out += R"("content":)";
      AppendJsonString(out, part.text);
    }
    out += '}';
  } else {
    out += R"("text":)";
    AppendJsonString(out, part.text);
  }
  AppendLogprobs(out, part.logprobs);
  AppendFinishReason(out, part.finish_reason);
  out += head_.include_usage ? R"(}],"usage":null})" : "}]}";
  out += "\n\n";
}

void AnswerWriter::AppendUsageChunk(std::string& out, const Usage& usage) const {
  out += opening_;
  out += "],";
  AppendUsage(out, usage);
  out += "}\n\n";
}

std::string AnswerWriter::Whole(std::span<const ChoicePart> choices, const Usage& usage) const {
  std::string out = Opening(head_, head_.chat ? "chat.completion" : "text_completion");
  for (size_t i = 0; i < choices.size(); ++i) {
    if (i > 0) out += ',';
    fmt::format_to(std::back_inserter(out), R"({{"index":{},)", choices[i].index);
    out += head_.chat ? R"("message":{"role":"assistant","content":)" : R"("text":)";
    AppendJsonString(out, choices[i].text);
    if (head_.chat) out += R"(,"refusal":null})";
    AppendLogprobs(out, choices[i].logprobs);
    AppendFinishReason(out, choices[i].finish_reason);
    out += '}';
  }
  out += "],";
  AppendUsage(out, usage);
  out += '}';
  return out;
}

std::string ErrorJson(const ApiError& error) {
  std::string out = R"({"error":{"message":)";
  AppendJsonString(out, error.message);
  out += R"(,"type":)";
  AppendJsonString(out, error.type);
  out += R"(,"param":)";
  if (error.param.empty()) {
    out += "null";
  } else {
    AppendJsonString(out, error.param);
  }
  out += R"(,"code":)";
  AppendJsonString(out, error.code);
  out += "}}";
  return out;
}

}  // namespace penstock::engine
