#include "backend-engine/api/openai_response.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <vector>

namespace penstock::engine {
namespace {

AnswerHead Head(bool chat) {
  return {.chat = chat, .id = "id-1", .created = 17, .model = "m\"1", .fingerprint = "fp"};
}

TEST(AnswerWriter, SendsTheRoleTogetherWithTheFirstText) {
  const AnswerWriter writer(Head(true));
  std::string out;
  writer.AppendChunk(out, {.index = 0, .text = "Hi", .first = true});
  writer.AppendChunk(out, {.index = 0, .text = " you"});
  writer.AppendChunk(out, {.index = 0, .finish_reason = "stop"});
  const std::string opening =
      R"(data: {"id":"id-1","object":"chat.completion.chunk","created":17,"model":"m\"1",)"
      R"("system_fingerprint":"fp","choices":[)";
  EXPECT_EQ(out,
            opening + R"({"index":0,"delta":{"role":"assistant","content":"Hi"},"logprobs":null,)"
                      R"("finish_reason":null}]})" "\n\n" +
            opening + R"({"index":0,"delta":{"content":" you"},"logprobs":null,)"
                      R"("finish_reason":null}]})" "\n\n" +
            opening + R"({"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}]})" "\n\n");
}

TEST(AnswerWriter, AnEmptyAnswerStillHasARole) {
  std::string out;
  AnswerWriter(Head(true)).AppendChunk(out, {.first = true, .finish_reason = "stop"});
  const auto event = nlohmann::json::parse(out.substr(6));
  EXPECT_EQ(event["choices"][0]["delta"],
            nlohmann::json({{"role", "assistant"}, {"content", ""}}));
}

TEST(AnswerWriter, SaysUsageNullUntilTheChunkThatHasIt) {
  AnswerHead head = Head(false);
  head.include_usage = true;
  const AnswerWriter writer(head);
  std::string out;
  writer.AppendChunk(out, {.text = "a"});
  EXPECT_TRUE(nlohmann::json::parse(out.substr(6))["usage"].is_null());
  out.clear();
  writer.AppendUsageChunk(out, {.prompt_tokens = 3, .completion_tokens = 4});
  const auto last = nlohmann::json::parse(out.substr(6));
  EXPECT_EQ(last["choices"], nlohmann::json::array());
  EXPECT_EQ(last["usage"], nlohmann::json({{"prompt_tokens", 3}, {"completion_tokens", 4},
                                           {"total_tokens", 7}}));
}

TEST(AnswerWriter, WritesWholeAnswersOfBothKinds) {
  const std::vector<ChoicePart> choices = {{.index = 0, .text = "a\n", .finish_reason = "stop"},
                                           {.index = 1, .text = "b", .finish_reason = "length"}};
  const auto chat = nlohmann::json::parse(AnswerWriter(Head(true)).Whole(choices, {1, 2}));
  EXPECT_EQ(chat["object"], "chat.completion");
  EXPECT_EQ(chat["choices"][0]["message"]["content"], "a\n");
  EXPECT_EQ(chat["choices"][0]["message"]["role"], "assistant");
  EXPECT_EQ(chat["choices"][1]["finish_reason"], "length");
  EXPECT_EQ(chat["usage"]["total_tokens"], 3);
  const auto text = nlohmann::json::parse(AnswerWriter(Head(false)).Whole(choices, {1, 2}));
  EXPECT_EQ(text["object"], "text_completion");
  EXPECT_EQ(text["choices"][1]["text"], "b");
}

TEST(AnswerWriter, ShapesLogprobsAsEachRouteDoes) {
  const std::vector<TokenLogprobs> logprobs = {
      {.token = {"\xC3", -0.5F}, .top = {{"\xC3", -0.5F}, {"b", -1e30F}}, .text_offset = 2}};
  AnswerHead head = Head(true);
  head.logprobs = true;
  const std::vector<ChoicePart> choices = {{.text = "x", .logprobs = logprobs}};
  const auto chat = nlohmann::json::parse(AnswerWriter(head).Whole(choices, {}));
  const auto& entry = chat["choices"][0]["logprobs"]["content"][0];
  EXPECT_EQ(entry["token"], "\xEF\xBF\xBD");
  EXPECT_EQ(entry["bytes"], nlohmann::json({0xC3}));
  EXPECT_EQ(entry["top_logprobs"].size(), 2u);
  EXPECT_EQ(entry["top_logprobs"][1]["logprob"], -9999.0);
  head.chat = false;
  const auto text = nlohmann::json::parse(AnswerWriter(head).Whole(choices, {}));
  const auto& lists = text["choices"][0]["logprobs"];
  EXPECT_EQ(lists["tokens"].size(), 1u);
  EXPECT_EQ(lists["token_logprobs"][0], -0.5);
  EXPECT_EQ(lists["top_logprobs"][0]["b"], -9999.0);
  EXPECT_EQ(lists["text_offset"], nlohmann::json({2}));
}

TEST(AnswerWriter, GivesTokensThatAreNoTextAKeyOfTheirOwn) {
  const std::vector<TokenLogprobs> logprobs = {
      {.token = {"\xC3", -0.5F}, .top = {{"\xC3", -0.5F}, {"\xE2\x82", -1}, {"\xC3\xA9", -2}}}};
  AnswerHead head = Head(false);
  head.logprobs = true;
  const std::vector<ChoicePart> choices = {{.text = "x", .logprobs = logprobs}};
  const auto text = nlohmann::json::parse(AnswerWriter(head).Whole(choices, {}));
  const auto& lists = text["choices"][0]["logprobs"];
  EXPECT_EQ(lists["tokens"][0], R"(bytes:\xc3)");
  EXPECT_EQ(lists["top_logprobs"][0],
            nlohmann::json({{R"(bytes:\xc3)", -0.5}, {R"(bytes:\xe2\x82)", -1.0}, {"é", -2.0}}));
}

TEST(AnswerWriter, TheTopTokensOfACompletionAlwaysHoldTheOneThatWasDrawn) {
  const std::vector<TokenLogprobs> logprobs = {
      {.token = {"a", -0.5F}, .top = {{"a", -0.5F}, {"b", -1}}},
      {.token = {"c", -3}, .top = {{"a", -0.25F}, {"b", -2}}},
      {.token = {"d", -1}}};  // logprobs: 0.
  AnswerHead head = Head(false);
  head.logprobs = true;
  const std::vector<ChoicePart> choices = {{.text = "acd", .logprobs = logprobs}};
  const auto text = nlohmann::json::parse(AnswerWriter(head).Whole(choices, {}));
  const auto& tops = text["choices"][0]["logprobs"]["top_logprobs"];
  EXPECT_EQ(tops[0], nlohmann::json({{"a", -0.5}, {"b", -1.0}}));
  EXPECT_EQ(tops[1], nlohmann::json({{"a", -0.25}, {"b", -2.0}, {"c", -3.0}}));
  EXPECT_EQ(tops[2], nlohmann::json({{"d", -1.0}}));
}

TEST(ErrorJson, HasOpenAisShape) {
  EXPECT_EQ(ErrorJson({.message = "no \"x\""}),
            R"({"error":{"message":"no \"x\"","type":"invalid_request_error","param":null,)"
            R"("code":"bad_request"}})");
  EXPECT_EQ(nlohmann::json::parse(ErrorJson(BadField("n", "m")))["error"]["param"], "n");
}

}  // namespace
}  // namespace penstock::engine
