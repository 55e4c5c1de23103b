// From the messages of a chat request to the text that the model was trained
// to continue, by the chat template of its folder: chat_template.jinja, or
// "chat_template" in tokenizer_config.json (a string, or a list of named ones
// of which "default" and "tool_use" are used).
//
// Threads: const once loaded; any thread may render.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace penstock::engine {

class Template;

struct ChatInput {
  std::string_view messages_json;    // The request's "messages", as JSON.
  std::string_view tools_json = {};  // "tools"; empty or null: none.
  std::string_view extra_json = {};  // An object of further variables (chat_template_kwargs).
  bool add_generation_prompt = true;
  absl::Time now = {};               // What strftime_now() tells the template, in UTC.
};

class ChatTemplate {
 public:
  // NotFound where the folder has no template.
  static absl::StatusOr<std::unique_ptr<ChatTemplate>> Load(const std::string& dir);

  // From text; bos and eos are what the template sees as bos_token, eos_token.
  static absl::StatusOr<std::unique_ptr<ChatTemplate>> Parse(std::string_view template_text,
                                                             std::string bos, std::string eos);
  ~ChatTemplate();

  // InvalidArgument: the messages are not what the template takes (its own
  // raise_exception included), to be told to the client. ResourceExhausted:
  // the template went beyond its limits.
  absl::StatusOr<std::string> Render(const ChatInput& input) const;

 private:
  ChatTemplate();

  std::unique_ptr<const Template> default_;
  std::unique_ptr<const Template> tool_use_;  // May be null.
  std::string bos_;
  std::string eos_;
};

}  // namespace penstock::engine
