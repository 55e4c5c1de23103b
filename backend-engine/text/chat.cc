#include "backend-engine/text/chat.h"

#include <utility>

#include <fmt/format.h>

#include "absl/status/status.h"
#include "backend-engine/load/json_file.h"
#include "backend-engine/text/template.h"
#include "backend-engine/text/template_json.h"
#include "backend-engine/text/template_value.h"
#include "backend-engine/text/unicode.h"

namespace penstock::engine {
namespace {

using jinja::Dict;
using jinja::Value;
using jinja::Values;

constexpr size_t kConfigBytesMax = 16 << 20;

// bos_token and its like are a string, an added token's object, or null.
std::string TokenText(const nlohmann::json& config, const char* field) {
  if (!config.is_object() || !config.contains(field)) return {};
  const nlohmann::json& value = config[field];
  if (value.is_object() && value.contains("content") && value["content"].is_string()) {
    return value["content"].get<std::string>();
  }
  return value.is_string() ? value.get<std::string>() : std::string();
}

absl::StatusOr<std::unique_ptr<const Template>> ParseIn(const std::string& path,
                                                        std::string_view text) {
  auto parsed = Template::Parse(text);
  if (parsed.ok()) return parsed;
  return absl::InvalidArgumentError(
      fmt::format("{}: {}", path, std::string(parsed.status().message())));
}

// Content in parts becomes one text, as templates expect it; parts that are
// not text cannot be told to a model that reads text alone.
absl::StatusOr<Value> WithTextContent(const Value& message, size_t index) {
  if (!message.is_dict()) {
    return absl::InvalidArgumentError(fmt::format("messages[{}] is not an object", index));
  }
  const Value* content = message.dict().Find("content");
  if (content == nullptr || !content->is_list()) return message;
  std::string text;
  for (const Value& part : content->items()) {
    const Value* part_text = part.is_dict() ? part.dict().Find("text") : nullptr;
    if (part_text == nullptr || !part_text->is_string()) {
      return absl::InvalidArgumentError(fmt::format(
          "messages[{}].content: a part without text; this model reads text alone", index));
    }
    if (!text.empty()) text += '\n';
    text += part_text->string();
  }
  Dict changed = message.dict();
  changed.Set("content", Value::String(std::move(text)));
  return Value::Of(std::move(changed));
}

}  // namespace

ChatTemplate::ChatTemplate() = default;
ChatTemplate::~ChatTemplate() = default;

absl::StatusOr<std::unique_ptr<ChatTemplate>> ChatTemplate::Load(const std::string& dir) {
  const std::string config_path = dir + "/tokenizer_config.json";
  auto config = ReadJsonFile(config_path, kConfigBytesMax);
  if (!config.ok() && !absl::IsNotFound(config.status())) return config.status();
  const nlohmann::json empty = nlohmann::json::object();
  const nlohmann::json& fields = config.ok() && config->is_object() ? *config : empty;

  std::unique_ptr<ChatTemplate> out(new ChatTemplate);
  out->bos_ = TokenText(fields, "bos_token");
  out->eos_ = TokenText(fields, "eos_token");

  const std::string jinja_path = dir + "/chat_template.jinja";
  const auto text = ReadWholeFile(jinja_path, kTemplateBytesMax);
  if (text.ok()) {
    auto parsed = ParseIn(jinja_path, *text);
    if (!parsed.ok()) return parsed.status();
    out->default_ = std::move(*parsed);
    return out;
  }
  if (!absl::IsNotFound(text.status())) return text.status();

  const auto found = fields.find("chat_template");
  nlohmann::json list = nlohmann::json::array();
  if (found != fields.end() && found->is_string()) {
    list.push_back({{"name", "default"}, {"template", *found}});
  } else if (found != fields.end() && found->is_array()) {
    list = *found;
  }
  for (const nlohmann::json& entry : list) {
    const std::string name = TokenText(entry, "name");
    if (name != "default" && name != "tool_use") continue;
    auto parsed = ParseIn(config_path, TokenText(entry, "template"));
    if (!parsed.ok()) return parsed.status();
    (name == "default" ? out->default_ : out->tool_use_) = std::move(*parsed);
  }
  if (out->default_ == nullptr) {
    return absl::NotFoundError(fmt::format(
        "{}: no chat_template in tokenizer_config.json and no chat_template.jinja; such a model "
        "completes text (/v1/completions) but takes no chat",
        dir));
  }
  return out;
}

absl::StatusOr<std::unique_ptr<ChatTemplate>> ChatTemplate::Parse(std::string_view template_text,
                                                                  std::string bos,
                                                                  std::string eos) {
  auto parsed = Template::Parse(template_text);
  if (!parsed.ok()) return parsed.status();
  std::unique_ptr<ChatTemplate> out(new ChatTemplate);
  out->default_ = std::move(*parsed);
  out->bos_ = std::move(bos);
  out->eos_ = std::move(eos);
  return out;
}

absl::StatusOr<std::string> ChatTemplate::Render(const ChatInput& input) const {
  Dict variables;
  if (!input.extra_json.empty()) {
    const auto extra = jinja::ParseJson(input.extra_json, "chat_template_kwargs");
    if (!extra.ok()) return extra.status();
    if (!extra->is_dict()) {
      return absl::InvalidArgumentError("chat_template_kwargs: expected an object");
    }
    variables = extra->dict();
  }
  const auto messages = jinja::ParseJson(input.messages_json, "messages");
  if (!messages.ok()) return messages.status();
  if (!messages->is_list()) return absl::InvalidArgumentError("messages: expected a list");
  Values checked;
  for (size_t i = 0; i < messages->items().size(); ++i) {
    auto message = WithTextContent(messages->items()[i], i);
    if (!message.ok()) return message.status();
    checked.push_back(std::move(*message));
  }
  Value tools = Value::None();
  if (!input.tools_json.empty()) {
    auto parsed = jinja::ParseJson(input.tools_json, "tools");
    if (!parsed.ok()) return parsed.status();
    tools = std::move(*parsed);
  }
  const bool with_tools = tools.Truthy();
  variables.Set("messages", Value::List(std::move(checked)));
  variables.Set("tools", with_tools ? std::move(tools) : Value::None());
  variables.Set("add_generation_prompt", Value::Bool(input.add_generation_prompt));
  variables.Set("documents", Value::None());
  if (!bos_.empty()) variables.Set("bos_token", Value::String(bos_));
  if (!eos_.empty()) variables.Set("eos_token", Value::String(eos_));
  const Template& chosen = with_tools && tool_use_ != nullptr ? *tool_use_ : *default_;
  return chosen.Render(variables, input.now);
}

}  // namespace penstock::engine
