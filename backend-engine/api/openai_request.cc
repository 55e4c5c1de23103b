#include "backend-engine/api/openai_request.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <limits>

#include "backend-engine/api/json_fields.h"
#include "backend-engine/api/unsupported_fields.h"

namespace penstock::engine {
namespace {

using simdjson::dom::array;
using simdjson::dom::element;
using simdjson::dom::object;

constexpr int64_t kInt32Max = std::numeric_limits<int32_t>::max();
constexpr size_t kAnyBytes = std::numeric_limits<uint32_t>::max();  // The body's limit is enough.

// A whole number modulo 2^64, negative or not: the same number is always the same seed.
void ReadSeed(JsonFields& fields, AnswerSettings& settings) {
  const auto value = fields.Any("seed");
  if (!value) return;
  uint64_t large = 0;
  if (const auto number = WholeNumber(*value)) {
    large = static_cast<uint64_t>(*number);
  } else if (value->get(large) != simdjson::SUCCESS) {
    return fields.Refuse("seed", "a whole number of 64 bits");
  }
  settings.seed = large;
  settings.sampling.seed = large;
}

void ReadStop(JsonFields& fields, AnswerSettings& settings) {
  static const std::string allowed =
      fmt::format("a string or up to {} strings, each of 1 to {} bytes", kStopsMax, kStopBytesMax);
  const auto value = fields.Any("stop");
  if (!value) return;
  const auto add = [&](element item) {
    std::string_view text;
    if (item.get(text) != simdjson::SUCCESS || text.empty() || text.size() > kStopBytesMax) {
      return false;
    }
    settings.stop.emplace_back(text);
    return true;
  };
  array list;
  if (value->get(list) != simdjson::SUCCESS) {
    if (!add(*value)) fields.Refuse("stop", allowed);
    return;
  }
  if (list.size() > kStopsMax) return fields.Refuse("stop", allowed);
  size_t index = 0;
  for (element item : list) {
    if (!add(item)) {
      return fields.Fail("stop", fmt::format("stop[{}] is {}; allowed: {}", index, Found(item), allowed));
    }
    ++index;
  }
}

// Token ids, or nothing if an item is not one: `wrong` says which, as "[3] is -1".
std::optional<TokenIds> ReadIds(array list, int32_t vocab_size, std::string& wrong) {
  TokenIds ids;
  ids.reserve(list.size());
  for (element item : list) {
    int64_t id = -1;
    if (item.get(id) != simdjson::SUCCESS || id < 0 || id >= vocab_size) {
      wrong = fmt::format("[{}] is {}", ids.size(), Found(item));
      return std::nullopt;
    }
    ids.push_back(static_cast<int32_t>(id));
  }
  return ids;
}

void ReadStopTokens(JsonFields& fields, const RequestLimits& limits, AnswerSettings& settings) {
  const auto value = fields.Any("stop_token_ids");
  if (!value) return;
  const std::string allowed = fmt::format("an array of up to {} token ids from 0 to {}",
                                          kStopTokensMax, limits.vocab_size - 1);
  array list;
  if (value->get(list) != simdjson::SUCCESS || list.size() > kStopTokensMax) {
    return fields.Refuse("stop_token_ids", allowed);
  }
  std::string wrong;
  auto ids = ReadIds(list, limits.vocab_size, wrong);
  if (!ids) {
    return fields.Fail("stop_token_ids", fmt::format("stop_token_ids{}; allowed: {}", wrong, allowed));
  }
  settings.stop_token_ids = *std::move(ids);
}

void ReadLogitBias(JsonFields& fields, const RequestLimits& limits, AnswerSettings& settings) {
  const auto value = fields.Any("logit_bias");
  if (!value) return;
  object biases;
  if (value->get(biases) != simdjson::SUCCESS || biases.size() > kLogitBiasMax) {
    return fields.Refuse("logit_bias", fmt::format("an object of up to {} token ids, each with a "
                                                   "number from -100 to 100", kLogitBiasMax));
  }
  for (const auto field : biases) {
    int32_t token = -1;
    const char* end = field.key.data() + field.key.size();
    const auto [stop, code] = std::from_chars(field.key.data(), end, token);
    if (code != std::errc() || stop != end || token < 0 || token >= limits.vocab_size) {
      return fields.Fail("logit_bias", fmt::format("a key of logit_bias is not a token id of this "
                                                   "model; allowed: 0 to {}", limits.vocab_size - 1));
    }
    double bias = 0;
    if (field.value.get(bias) != simdjson::SUCCESS || bias < -100 || bias > 100) {
      return fields.Fail("logit_bias", fmt::format("logit_bias[{}] is {}; allowed: a number from "
                                                   "-100 to 100", token, Found(field.value)));
    }
    settings.sampling.logit_bias.emplace_back(token, static_cast<float>(bias));
  }
}

void ReadSampling(JsonFields& fields, const RequestLimits& limits, AnswerSettings& settings) {
  SamplingParams& sampling = settings.sampling;
  const auto set = [](float& target, std::optional<double> value) {
    if (value) target = static_cast<float>(*value);
  };
  sampling = limits.defaults;
  set(sampling.temperature, fields.Number("temperature", 0, 2));
  set(sampling.top_p, fields.Number("top_p", 0, 1, true));
  set(sampling.min_p, fields.Number("min_p", 0, 1));
  set(sampling.repetition_penalty, fields.Number("repetition_penalty", 0.001, 10));
  set(sampling.presence_penalty, fields.Number("presence_penalty", -2, 2));
  set(sampling.frequency_penalty, fields.Number("frequency_penalty", -2, 2));
  if (const auto top_k = fields.Integer("top_k", -1, kInt32Max)) {
    sampling.top_k = static_cast<int32_t>(std::max<int64_t>(*top_k, 0));  // -1: all, like 0.
  }
  ReadSeed(fields, settings);
  ReadStop(fields, settings);
  ReadStopTokens(fields, limits, settings);
  ReadLogitBias(fields, limits, settings);
}

void ReadStream(JsonFields& fields, AnswerSettings& settings) {
  settings.stream = fields.Bool("stream").value_or(false);
  const auto value = fields.Any("stream_options");
  if (!value) return;
  object options;
  if (value->get(options) != simdjson::SUCCESS) {
    return fields.Refuse("stream_options", "an object");
  }
  if (!settings.stream) {
    return fields.Fail("stream_options",
                       "stream_options is given but stream is not true; set stream to true or "
                       "leave stream_options out");
  }
  std::optional<ApiError> error;
  JsonFields inner(options, "stream_options.", error);
  settings.include_usage = inner.Bool("include_usage").value_or(false);
  if (error) fields.Fail("stream_options", error->message);
}

// What both kinds of request share, and what we must not ignore in silence.
void ReadCommon(JsonFields& fields, const RequestLimits& limits, OpenAiRequest& request) {
  if (const auto model = fields.String("model", kModelNameBytesMax)) {
    request.model = *model;
  }
  if (fields.ok() && request.model.empty()) fields.Refuse("model", "the name of a model");
  if (const auto n = fields.Integer("n", 1, kChoicesMax)) request.settings.n = static_cast<int32_t>(*n);
  if (const auto best_of = fields.Integer("best_of", 1, kInt32Max); best_of != request.settings.n && best_of) {
    fields.Refuse("best_of", "the value of n, since answers are not ranked here");
  }
  ReadSampling(fields, limits, request.settings);
  ReadStream(fields, request.settings);
  request.settings.ignore_eos = fields.Bool("ignore_eos").value_or(false);
  request.settings.min_tokens =
      static_cast<int32_t>(fields.Integer("min_tokens", 0, kInt32Max).value_or(0));
  RefuseUnsupported(fields);
}

void ReadMaxTokens(JsonFields& fields, std::string_view name, AnswerSettings& settings) {
  if (const auto count = fields.Integer(name, 1, kInt32Max)) {
    settings.max_tokens = static_cast<int32_t>(*count);
  }
}

// A string, or parts of {"type":"text","text":...}; other parts would need the
// engine to fetch or decode something, and no address of a client's is ever opened.
void ReadContent(JsonFields& fields, ChatMessage& message) {
  constexpr std::string_view kAllowed = "a string or an array of text parts";
  const auto value = fields.Any("content");
  if (!value) {
    if (message.role != "assistant") fields.Refuse("content", kAllowed);
    return;
  }
  std::string_view text;
  if (value->get(text) == simdjson::SUCCESS) {
    message.content = text;
    return;
  }
  array parts;
  if (value->get(parts) != simdjson::SUCCESS || parts.size() > kContentPartsMax) {
    return fields.Refuse("content", kAllowed);
  }
  size_t index = 0;
  for (element part : parts) {
    std::string_view type;
    if (part.at_key("type").get(type) != simdjson::SUCCESS || type != "text" ||
        part.at_key("text").get(text) != simdjson::SUCCESS) {
      return fields.Fail("content", fmt::format("{}[{}] is not a text part; this model reads text "
                                                "only: {{\"type\":\"text\",\"text\":...}}",
                                                fields.Path("content"), index));
    }
    message.content += text;
    ++index;
  }
}

// Calls that an assistant made would be missing in the prompt: no template here is given them.
void RefuseCalls(JsonFields& fields) {
  for (const std::string_view name : {"tool_calls", "function_call"}) {
    const auto calls = fields.Any(name);
    array list;
    if (!calls || (calls->get(list) == simdjson::SUCCESS && list.size() == 0)) continue;
    return fields.Fail(name, fmt::format("{}: this engine reads the text of messages only; leave "
                                         "{} out", fields.Path(name), name));
  }
}

void ReadMessages(JsonFields& fields, OpenAiRequest& request) {
  static const std::string allowed = fmt::format("an array of 1 to {} messages", kMessagesMax);
  const auto value = fields.Any("messages");
  array list;
  if (!value || value->get(list) != simdjson::SUCCESS || list.size() == 0 ||
      list.size() > kMessagesMax) {
    return fields.Refuse("messages", allowed);
  }
  request.messages.reserve(list.size());
  std::optional<ApiError> error;
  for (element item : list) {
    const std::string path = fmt::format("messages[{}]", request.messages.size());
    object message_object;
    if (item.get(message_object) != simdjson::SUCCESS) {
      return fields.Fail("messages", fmt::format("{} is {}; allowed: an object with role and content",
                                                 path, Found(item)));
    }
    JsonFields inner(message_object, path + ".", error);
    ChatMessage& message = request.messages.emplace_back();
    message.role = inner.String("role", 32).value_or("");
    if (message.role == "developer") message.role = "system";
    constexpr std::string_view kRoles[] = {"system", "user", "assistant", "tool"};
    if (std::find(std::begin(kRoles), std::end(kRoles), message.role) == std::end(kRoles)) {
      inner.Refuse("role", "\"system\", \"developer\", \"user\", \"assistant\" or \"tool\"");
    }
    ReadContent(inner, message);
    RefuseCalls(inner);
    if (error) return fields.Fail("messages", error->message);
  }
}

void ReadPrompts(JsonFields& fields, const RequestLimits& limits, OpenAiRequest& request) {
  const std::string allowed = fmt::format(
      "a string, an array of token ids from 0 to {}, or an array of up to {} of either, none empty",
      limits.vocab_size - 1, kPromptsMax);
  const auto value = fields.Any("prompt");
  // One prompt: false if it is neither text nor ids, or is empty; `wrong` says which id is none.
  std::string wrong;
  const auto add = [&](element item) {
    std::string_view text;
    array list;
    if (item.get(text) == simdjson::SUCCESS) {
      if (text.empty()) return false;
      request.prompts.emplace_back(std::string(text));
      return true;
    }
    if (item.get(list) != simdjson::SUCCESS || list.size() == 0) return false;
    auto ids = ReadIds(list, limits.vocab_size, wrong);
    if (!ids) return false;
    request.prompts.emplace_back(std::move(*ids));
    return true;
  };
  if (!value) return fields.Refuse("prompt", allowed);
  array list;
  const bool many = value->get(list) == simdjson::SUCCESS && list.size() > 0 &&
                    !(*list.begin()).is_number();
  if (!many) {
    if (add(*value)) return;
    if (wrong.empty()) return fields.Refuse("prompt", allowed);
    return fields.Fail("prompt", fmt::format("prompt{}; allowed: {}", wrong, allowed));
  }
  if (list.size() > kPromptsMax) return fields.Refuse("prompt", allowed);
  for (element item : list) {
    if (!add(item)) {
      if (wrong.empty()) wrong = fmt::format(" is {}", Found(item));
      return fields.Fail("prompt", fmt::format("prompt[{}]{}; allowed: {}",
                                               request.prompts.size(), wrong, allowed));
    }
  }
}

}  // namespace

std::optional<OpenAiRequest> ParseChatRequest(object body, const RequestLimits& limits,
                                              std::optional<ApiError>& error) {
  OpenAiRequest request;
  request.settings.chat = true;
  JsonFields fields(body, "", error);
  ReadCommon(fields, limits, request);
  ReadMaxTokens(fields, fields.Any("max_completion_tokens") ? "max_completion_tokens" : "max_tokens",
                request.settings);
  ReadMessages(fields, request);
  RefuseTools(fields);
  const bool logprobs = fields.Bool("logprobs").value_or(false);
  const auto top = fields.Integer("top_logprobs", 0, kLogprobsMax);
  if (top.value_or(0) > 0 && !logprobs) {
    fields.Fail("top_logprobs", "top_logprobs is given but logprobs is not true; set logprobs to "
                                "true or leave top_logprobs out");
  }
  if (logprobs) request.settings.sampling.logprobs = static_cast<int32_t>(top.value_or(0));
  if (error) return std::nullopt;
  return request;
}

std::optional<OpenAiRequest> ParseCompletionRequest(object body, const RequestLimits& limits,
                                                    std::optional<ApiError>& error) {
  OpenAiRequest request;
  JsonFields fields(body, "", error);
  ReadCommon(fields, limits, request);
  ReadMaxTokens(fields, "max_tokens", request.settings);
  ReadPrompts(fields, limits, request);
  if (const auto logprobs = fields.Integer("logprobs", 0, kLogprobsMax)) {
    request.settings.sampling.logprobs = static_cast<int32_t>(*logprobs);
  }
  request.settings.echo = fields.Bool("echo").value_or(false);
  if (request.settings.echo && request.settings.sampling.logprobs >= 0) {
    fields.Fail("echo", "echo together with logprobs is not supported: the logprobs of the prompt "
                        "are not computed; leave one of them out");
  }
  if (fields.Any("suffix")) {
    fields.Fail("suffix", "this model does not fill in the middle; leave suffix out");
  }
  if (fields.ok() && request.prompts.size() * static_cast<size_t>(request.settings.n) > kSequencesMax) {
    fields.Fail("n", fmt::format("n is {} for {} prompts; allowed: up to {} answers in one request",
                                 request.settings.n, request.prompts.size(), kSequencesMax));
  }
  if (error) return std::nullopt;
  return request;
}

}  // namespace penstock::engine
