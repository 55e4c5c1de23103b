#include "backend-engine/api/prompt.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <iterator>
#include <string>
#include <string_view>
#include <utility>

#include "backend-engine/api/json_text.h"
#include "proxy/base/status.h"

namespace penstock::engine {
namespace {

// A client's text may spell a special token ("<|im_end|>"); it must stay text, or
// a message could end itself and begin another. So before the template is
// rendered such spellings are replaced by references between two private-use
// characters, and when the rendered text is encoded they are put back as plain
// text. The two characters themselves are replaced likewise. Where special tokens
// are looked for in normalised text, so it is here.
constexpr std::string_view kOpen = "\xEF\xA3\xB0";   // U+F8F0
constexpr std::string_view kClose = "\xEF\xA3\xB1";  // U+F8F1

class Spellings {
 public:
  explicit Spellings(const ServedModel& model) : model_(model) {}

  // `text` with references in place of what must not be read as a special token.
  std::string Hide(std::string_view text) {
    std::string out;
    out.reserve(text.size());
    for (size_t at = 0; at < text.size();) {
      const auto [index, size] = At(text, at);
      if (index == kNone) {
        out += text[at++];
        continue;
      }
      fmt::format_to(std::back_inserter(out), "{}{}{}", kOpen, index, kClose);
      at += size;
      any_ = true;
    }
    return out;
  }

  // The tokens of a rendered template whose messages went through Hide(), or
  // the first of them if they are more than `ids_max`.
  absl::StatusOr<TokenIds> Encode(std::string_view rendered, size_t ids_max) const {
    const Tokenizer& tokenizer = *model_.tokenizer;
    if (!any_) return tokenizer.Encode(rendered, false, /*allow_special=*/true, ids_max);
    TokenIds ids;
    while (!rendered.empty() && ids.size() <= ids_max) {
      const size_t open = std::min(rendered.find(kOpen), rendered.size());
      absl::Status status = Append(rendered.substr(0, open), true, ids_max, ids);
      if (!status.ok()) return status;
      rendered.remove_prefix(open);
      if (rendered.empty()) break;
      rendered.remove_prefix(kOpen.size());
      const size_t close = std::min(rendered.find(kClose), rendered.size());
      size_t index = kNone;
      std::from_chars(rendered.data(), rendered.data() + close, index);
      // A template that cuts text apart may have cut a reference; what is left of it is dropped.
      rendered.remove_prefix(std::min(close + kClose.size(), rendered.size()));
      if (index >= model_.special_texts.size() + 2) continue;
      status = Append(Text(index), false, ids_max, ids);
      if (!status.ok()) return status;
    }
    return ids;
  }

 private:
  static constexpr size_t kNone = static_cast<size_t>(-1);

  std::string_view Text(size_t index) const {
    if (index < 2) return index == 0 ? kOpen : kClose;
    return model_.special_texts[index - 2];
  }

  struct Spelling {
    size_t index = kNone;
    size_t size = 0;
  };

  Spelling At(std::string_view text, size_t at) const {
    const std::string_view rest = text.substr(at);
    if (rest.starts_with(kOpen)) return {0, kOpen.size()};
    if (rest.starts_with(kClose)) return {1, kClose.size()};
    const AddedTokenFinder::Part found = model_.special_finder.LongestAt(text, at);
    if (found.id < 0) return {};
    return {static_cast<size_t>(found.id) + 2, found.text.size()};
  }

  absl::Status Append(std::string_view text, bool allow_special, size_t ids_max,
                      TokenIds& ids) const {
    if (text.empty() || ids.size() > ids_max) return absl::OkStatus();
    auto part = model_.tokenizer->Encode(text, false, allow_special, ids_max - ids.size());
    if (!part.ok()) return part.status();
    ids.insert(ids.end(), part->begin(), part->end());
    return absl::OkStatus();
  }

  const ServedModel& model_;
  bool any_ = false;
};

absl::StatusOr<TokenIds> EncodeChat(const ServedModel& model,
                                    const std::vector<ChatMessage>& messages, absl::Time now) {
  Spellings spellings(model);
  std::string json = "[";
  for (const ChatMessage& message : messages) {
    if (json.size() > 1) json += ',';
    json += R"({"role":)";
    AppendJsonString(json, message.role);
    json += R"(,"content":)";
    AppendJsonString(json, spellings.Hide(model.tokenizer->NormalizedForSpecial(message.content)));
    json += '}';
  }
  json += ']';
  auto rendered = model.chat->Render({.messages_json = json, .now = now});
  if (!rendered.ok()) return rendered.status();
  return spellings.Encode(*rendered, static_cast<size_t>(model.max_length));
}

absl::StatusOr<TokenIds> EncodePrompt(const ServedModel& model, const Prompt& prompt) {
  if (const TokenIds* ids = std::get_if<TokenIds>(&prompt)) return *ids;
  // A raw prompt is what its sender wrote it to be: special tokens count as such.
  return model.tokenizer->Encode(std::get<std::string>(prompt), /*add_special=*/true,
                                 /*allow_special=*/true, static_cast<size_t>(model.max_length));
}

std::string EchoOf(const ServedModel& model, const Prompt& prompt) {
  if (const std::string* text = std::get_if<std::string>(&prompt)) return *text;
  return model.tokenizer->Decode(std::get<TokenIds>(prompt), /*skip_special=*/true);
}

// No token stands for more than token_bytes_max bytes, so some texts are too long
// at a glance, before anything slow is done with them.
std::optional<ApiError> FitAtAGlance(const ServedModel& model, const AnswerSettings& settings,
                                     size_t bytes) {
  const size_t least = bytes / std::max<size_t>(model.token_bytes_max, 1);
  if (least < static_cast<size_t>(model.max_length)) return std::nullopt;
  return ApiError{.code = "context_length_exceeded",
                  .param = settings.chat ? "messages" : "prompt",
                  .message = fmt::format("the prompt is at least {} tokens long; this model takes "
                                         "{} tokens, prompt and answer together",
                                         least, model.max_length)};
}

// Sets the length of the answer, or says why there is no room for it. Of a text
// that is too long not all tokens were counted.
std::optional<ApiError> FitLength(const ServedModel& model, const AnswerSettings& settings,
                                  PreparedPrompt& prompt) {
  const char* param = settings.chat ? "messages" : "prompt";
  const auto length = static_cast<int64_t>(prompt.ids.size());
  if (length == 0) return BadField(param, fmt::format("{} holds no tokens", param));
  const int64_t room = model.max_length - length;
  if (room < 1) {
    return ApiError{.code = "context_length_exceeded",
                    .param = param,
                    .message = fmt::format("the prompt is {}{} tokens long; this model takes {} "
                                           "tokens, prompt and answer together",
                                           room < 0 ? "at least " : "", length, model.max_length)};
  }
  if (settings.max_tokens && *settings.max_tokens > room) {
    return ApiError{
        .code = "context_length_exceeded",
        .param = "max_tokens",
        .message = fmt::format("max_tokens is {} and the prompt is {} tokens long; this model takes "
                               "{} tokens together, so max_tokens may be up to {} here",
                               *settings.max_tokens, length, model.max_length, room)};
  }
  constexpr int32_t kCompletionTokens = 16;  // What the API promises where nothing is asked.
  const int64_t otherwise =
      settings.chat ? model.default_max_tokens.value_or(model.max_length) : kCompletionTokens;
  prompt.max_tokens = settings.max_tokens.value_or(static_cast<int32_t>(std::min(otherwise, room)));
  if (settings.min_tokens > prompt.max_tokens) {
    return BadField("min_tokens", fmt::format("min_tokens is {}; allowed: up to {}, the most tokens "
                                              "of this answer, which max_tokens sets",
                                              settings.min_tokens, prompt.max_tokens));
  }
  return std::nullopt;
}

// A whole answer is held until its last token: what it may take is bounded before
// anything is computed. A stream is not held. REQUIRES: lengths are set.
std::optional<ApiError> FitWhole(const AnswerSettings& settings,
                                 std::vector<PreparedPrompt>& prompts) {
  if (settings.stream) return std::nullopt;
  // About what a token takes as text, and each of its logprobs as JSON.
  const int64_t logprobs = settings.sampling.logprobs;
  const int64_t token_bytes = 8 + (logprobs >= 0 ? 90 * (1 + logprobs) : 0);
  const auto answers = static_cast<int64_t>(prompts.size()) * settings.n;
  int64_t echoed = 0;
  for (const PreparedPrompt& prompt : prompts) {
    echoed += static_cast<int64_t>(prompt.echo.size()) * settings.n;
  }
  const int64_t most = (kWholeAnswerBytes - echoed) / (answers * token_bytes);
  if (most < 1 || most < settings.max_tokens.value_or(1)) {
    return BadField("max_tokens",
                    fmt::format("{} answers of up to {} tokens could take more than the {} MiB of "
                                "a whole answer; allowed here: up to {} tokens each, or stream",
                                answers, prompts.front().max_tokens, kWholeAnswerBytes >> 20,
                                std::max<int64_t>(most, 0)));
  }
  for (PreparedPrompt& prompt : prompts) {
    prompt.max_tokens = static_cast<int32_t>(std::min<int64_t>(prompt.max_tokens, most));
  }
  return std::nullopt;
}

}  // namespace

size_t TextBytes(const OpenAiRequest& request) {
  size_t bytes = 0;
  for (const ChatMessage& message : request.messages) bytes += message.content.size();
  for (const Prompt& prompt : request.prompts) {
    const std::string* text = std::get_if<std::string>(&prompt);
    bytes += text != nullptr ? text->size() : std::get<TokenIds>(prompt).size() * sizeof(int32_t);
  }
  return bytes;
}

std::optional<std::vector<PreparedPrompt>> PreparePrompts(const ServedModel& model,
                                                          const OpenAiRequest& request,
                                                          absl::Time now,
                                                          std::optional<ApiError>& error) {
  std::vector<PreparedPrompt> prepared;
  const auto add = [&](absl::StatusOr<TokenIds> ids, const Prompt* echo) {
    if (!ids.ok()) {
      error = BadField(request.settings.chat ? "messages" : "prompt",
                       std::string(S(ids.status().message())));
      return;
    }
    PreparedPrompt& prompt = prepared.emplace_back();
    prompt.ids = *std::move(ids);
    error = FitLength(model, request.settings, prompt);
    if (!error && echo != nullptr) prompt.echo = EchoOf(model, *echo);
  };
  if (request.settings.chat) {
    if (model.chat == nullptr) {
      error = ApiError{.message = "this model has no chat template; use /v1/completions"};
      return std::nullopt;
    }
    error = FitAtAGlance(model, request.settings, TextBytes(request));
    if (!error) add(EncodeChat(model, request.messages, now), nullptr);
  }
  for (const Prompt& prompt : request.prompts) {
    const std::string* text = std::get_if<std::string>(&prompt);
    if (!error && text != nullptr) error = FitAtAGlance(model, request.settings, text->size());
    if (error) break;
    add(EncodePrompt(model, prompt), request.settings.echo ? &prompt : nullptr);
  }
  if (!error) error = FitWhole(request.settings, prepared);
  if (error) return std::nullopt;
  return prepared;
}

}  // namespace penstock::engine
