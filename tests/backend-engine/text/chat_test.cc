#include "backend-engine/text/chat.h"

#include <gtest/gtest.h>

#include <stdlib.h>

#include <filesystem>
#include <fstream>

#include <nlohmann/json.hpp>

#include "backend-engine/text/tokenizer.h"

namespace penstock::engine {
namespace {

const std::string kLexicon = PENSTOCK_SOURCE_DIR "/backend-engine/models/lexicon-5m";

class Folder {
 public:
  Folder() {
    char name[] = "/tmp/chat_test_XXXXXX";
    path_ = mkdtemp(name);
  }
  ~Folder() { std::filesystem::remove_all(path_); }
  const std::string& path() const { return path_; }
  void Write(const std::string& file, const std::string& text) const {
    std::ofstream(path_ + "/" + file, std::ios::binary) << text;
  }

 private:
  std::string path_;
};

std::string RenderIn(const Folder& folder, const ChatInput& input) {
  const auto chat = ChatTemplate::Load(folder.path());
  if (!chat.ok()) return "load: " + std::string(chat.status().message());
  const auto text = (*chat)->Render(input);
  return text.ok() ? *text : "render: " + std::string(text.status().message());
}

TEST(Chat, RendersTheEmbeddedModelsPrompts) {
  const auto chat = ChatTemplate::Load(kLexicon);
  ASSERT_TRUE(chat.ok()) << chat.status();
  const auto tokenizer = Tokenizer::Load(kLexicon);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  std::ifstream file(kLexicon + "/golden.json");
  const nlohmann::json golden = nlohmann::json::parse(file);
  for (const nlohmann::json& item : golden["answers"]) {
    const nlohmann::json messages = {{{"role", "user"}, {"content", item["question"]}}};
    const auto text = (*chat)->Render({.messages_json = messages.dump()});
    ASSERT_TRUE(text.ok()) << text.status();
    const auto ids = (*tokenizer)->Encode(*text, false, true);
    ASSERT_TRUE(ids.ok());
    EXPECT_EQ(*ids, item["prompt_ids"].get<std::vector<int32_t>>()) << *text;
  }
}

TEST(Chat, TakesTheTemplateFromEitherFile) {
  Folder folder;
  folder.Write("tokenizer_config.json",
               R"({"bos_token":{"content":"<b>"},"eos_token":"<e>","chat_template":[
                   {"name":"default","template":"plain {{ bos_token }}{{ eos_token }}"},
                   {"name":"tool_use","template":"tools {{ tools|length }}"}]})");
  EXPECT_EQ(RenderIn(folder, {.messages_json = "[]"}), "plain <b><e>");
  EXPECT_EQ(RenderIn(folder, {.messages_json = "[]", .tools_json = "[]"}), "plain <b><e>");
  EXPECT_EQ(RenderIn(folder, {.messages_json = "[]", .tools_json = "[{}]"}), "tools 1");
  folder.Write("chat_template.jinja", "file {{ messages[0].content }} {{ thinking }}");
  EXPECT_EQ(RenderIn(folder, {.messages_json = R"([{"role":"user","content":"hi"}])",
                              .extra_json = R"({"thinking":true})"}),
            "file hi True");
}

TEST(Chat, JoinsContentThatComesInParts) {
  const auto chat = ChatTemplate::Parse("{{ messages[0].content }}", "", "");
  ASSERT_TRUE(chat.ok());
  const auto text = (*chat)->Render(
      {.messages_json =
           R"([{"content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]}])"});
  ASSERT_TRUE(text.ok()) << text.status();
  EXPECT_EQ(*text, "a\nb");
  const auto image =
      (*chat)->Render({.messages_json = R"([{"content":[{"type":"image_url","image_url":{}}]}])"});
  EXPECT_EQ(image.status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(Chat, SaysWhatIsWrongWithTheFolderOrTheRequest) {
  Folder folder;
  EXPECT_NE(RenderIn(folder, {.messages_json = "[]"}).find("no chat_template in"),
            std::string::npos);
  folder.Write("chat_template.jinja", "line\n{% if %}");
  EXPECT_NE(RenderIn(folder, {.messages_json = "[]"}).find("chat_template.jinja: chat template: "
                                                           "line 2"),
            std::string::npos);
  folder.Write("chat_template.jinja", "{{ raise_exception('roles must alternate') }}");
  EXPECT_EQ(RenderIn(folder, {.messages_json = "[]"}),
            "render: chat template: roles must alternate");
  EXPECT_NE(RenderIn(folder, {.messages_json = "{}"}).find("expected a list"), std::string::npos);
  EXPECT_NE(RenderIn(folder, {.messages_json = "[1]"}).find("messages[0]"), std::string::npos);
  EXPECT_NE(RenderIn(folder, {.messages_json = "["}).find("not valid JSON"), std::string::npos);
  EXPECT_NE(RenderIn(folder, {.messages_json = R"([{"a":1,"a":2}])"}).find("appears twice"),
            std::string::npos);
}

}  // namespace
}  // namespace penstock::engine
