#include "backend-engine/api/unsupported_fields.h"

#include <fmt/format.h>

#include <string_view>

namespace penstock::engine {
namespace {

using simdjson::dom::array;
using simdjson::dom::element;
using simdjson::dom::object;

struct Unsupported {
  std::string_view name;
  std::string_view why;
};

constexpr std::string_view kPlainText = "this engine answers in plain text only";
constexpr std::string_view kBeams = "this engine draws each answer once";

constexpr Unsupported kUnsupported[] = {
    {"structured_outputs", kPlainText},
    {"guided_json", kPlainText},
    {"guided_regex", kPlainText},
    {"guided_choice", kPlainText},
    {"guided_grammar", kPlainText},
    {"prompt_logprobs", "the logprobs of the prompt are not computed"},
    {"chat_template", "the model's own template is used"},
    {"use_beam_search", kBeams},
    {"bad_words", "no words can be forbidden; logit_bias forbids tokens"},
    {"allowed_token_ids", "answers cannot be confined to some tokens"},
    {"include_stop_str_in_output", "stop strings are not part of the answer"},
    {"truncate_prompt_tokens", "prompts are not cut"},
    {"continue_final_message", "every answer is a message of its own"},
};

// false, "", [] and {}.
bool AsksForNothing(element value) {
  bool flag = true;
  std::string_view text;
  array list;
  object fields;
  if (value.get(flag) == simdjson::SUCCESS) return !flag;
  if (value.get(text) == simdjson::SUCCESS) return text.empty();
  if (value.get(list) == simdjson::SUCCESS) return list.size() == 0;
  return value.get(fields) == simdjson::SUCCESS && fields.size() == 0;
}

void RefuseFormat(JsonFields& fields) {
  const auto format = fields.Any("response_format");
  std::string_view kind;
  if (format && (format->at_key("type").get(kind) != simdjson::SUCCESS || kind != "text")) {
    fields.Fail("response_format", fmt::format("{}; leave response_format out or set its type to "
                                               "\"text\"", kPlainText));
  }
}

void RefuseModalities(JsonFields& fields) {
  const auto value = fields.Any("modalities");
  if (!value) return;
  array list;
  bool text_only = value->get(list) == simdjson::SUCCESS;
  if (text_only) {
    for (element item : list) {
      std::string_view kind;
      text_only = text_only && item.get(kind) == simdjson::SUCCESS && kind == "text";
    }
  }
  if (!text_only) {
    fields.Fail("modalities", fmt::format("{}; leave modalities out or set it to [\"text\"]",
                                          kPlainText));
  }
}

// A call that is demanded. Which one may be made is for tools to say.
bool DemandsCall(const JsonFields& fields, std::string_view name) {
  const auto choice = fields.Any(name);
  std::string_view text;
  return choice && (choice->get(text) != simdjson::SUCCESS || (text != "none" && text != "auto"));
}

}  // namespace

void RefuseUnsupported(JsonFields& fields) {
  RefuseFormat(fields);
  RefuseModalities(fields);
  for (const auto& [name, why] : kUnsupported) {
    const auto value = fields.Any(name);
    if (value && !AsksForNothing(*value)) {
      fields.Fail(name, fmt::format("{}; leave {} out", why, name));
    }
  }
}

void RefuseTools(JsonFields& fields) {
  for (const std::string_view name : {"tools", "functions"}) {
    const auto tools = fields.Any(name);
    if (!tools) continue;
    array list;
    if (tools->get(list) != simdjson::SUCCESS) return fields.Refuse(name, "an array");
    std::string_view choice;
    const auto tool_choice = fields.Any("tool_choice");
    const bool none = tool_choice && tool_choice->get(choice) == simdjson::SUCCESS && choice == "none";
    if (list.size() > 0 && !none) {
      fields.Fail(name, fmt::format("this engine calls no tools; leave {} out or set tool_choice "
                                    "to \"none\"", name));
    }
  }
  for (const std::string_view name : {"tool_choice", "function_call"}) {
    if (DemandsCall(fields, name)) {
      fields.Fail(name, fmt::format("this engine calls no tools; leave {} out or set it to \"none\"",
                                    name));
    }
  }
}

}  // namespace penstock::engine
