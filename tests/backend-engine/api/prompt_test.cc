#include "backend-engine/api/prompt.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>
#include <string>

#include "backend-engine/api/open_model.h"

namespace penstock::engine {
namespace {

const std::string kFolder = PENSTOCK_SOURCE_DIR "/backend-engine/models/lexicon-5m";

class PromptTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    auto opened = OpenModel({.model = kFolder, .device = "emulated"}, absl::UnixEpoch(),
                            [](double) {});
    ASSERT_TRUE(opened.ok()) << opened.status();
    opened_ = new OpenedModel(*std::move(opened));
  }
  static void TearDownTestSuite() { delete opened_; }

  static OpenAiRequest ChatOf(std::vector<std::string> contents) {
    OpenAiRequest request;
    request.settings.chat = true;
    for (std::string& content : contents) request.messages.push_back({"user", std::move(content)});
    return request;
  }

  // The ids of a request that must be fine.
  TokenIds Ids(const OpenAiRequest& request) {
    std::optional<ApiError> error;
    const auto prompts = PreparePrompts(opened_->model, request, absl::UnixEpoch(), error);
    EXPECT_TRUE(prompts) << (error ? error->message : "");
    return prompts ? prompts->front().ids : TokenIds();
  }
  ApiError Error(const OpenAiRequest& request) {
    std::optional<ApiError> error;
    EXPECT_FALSE(PreparePrompts(opened_->model, request, absl::UnixEpoch(), error));
    return error.value_or(ApiError());
  }

  static OpenedModel* opened_;
};

OpenedModel* PromptTest::opened_ = nullptr;

TEST_F(PromptTest, IsTheGoldenOneForEveryGoldenQuestion) {
  std::ifstream file(kFolder + "/golden.json");
  const auto golden = nlohmann::json::parse(file);
  ASSERT_GT(golden["answers"].size(), 0u);
  for (const auto& answer : golden["answers"]) {
    EXPECT_EQ(Ids(ChatOf({answer["question"]})), answer["prompt_ids"].get<TokenIds>());
  }
}

// Whatever a client writes, the only special tokens of the prompt are the template's own.
TEST_F(PromptTest, HoldsNoSpecialTokenOfAClientsMaking) {
  const uint32_t seed = 4711;
  std::mt19937 random(seed);
  const std::vector<std::string> parts = {"<|im_end|>", "<|im_start|>", "<|endoftext|>", "<|im_",
                                          "end|>",      "\xEF\xA3\xB0", "\xEF\xA3\xB1",  "0",
                                          "2",          " word",        "\n",            "é"};
  const auto specials = [&](const TokenIds& ids) {
    return std::count_if(ids.begin(), ids.end(),
                         [&](int32_t id) { return opened_->model.tokenizer->IsSpecial(id); });
  };
  const auto own = specials(Ids(ChatOf({"a"})));
  for (int round = 0; round < 2000; ++round) {
    std::string content = "a";
    for (uint32_t part = random() % 8; part > 0; --part) content += parts[random() % parts.size()];
    const TokenIds ids = Ids(ChatOf({content}));
    EXPECT_EQ(specials(ids), own) << "seed " << seed << " round " << round << ": " << content;
    // Nothing is lost: the text comes back.
    const std::string text = opened_->model.tokenizer->Decode(ids, true);
    EXPECT_NE(text.find(content), std::string::npos) << text;
  }
}

TEST_F(PromptTest, LeavesTheAnswerAsMuchRoomAsThereIs) {
  std::optional<ApiError> error;
  const auto room = [&](OpenAiRequest request) {
    const auto prompts = PreparePrompts(opened_->model, request, absl::UnixEpoch(), error);
    return prompts->front().max_tokens;
  };
  EXPECT_EQ(room(ChatOf({"a"})), 96);  // generation_config.json's max_new_tokens.
  OpenAiRequest text;
  text.prompts.emplace_back(TokenIds(500, 5));
  EXPECT_EQ(room(text), 12);  // Of the 16 that completions get, what the context leaves.
  text.prompts.front() = TokenIds(512, 5);
  EXPECT_EQ(Error(text).message, "the prompt is 512 tokens long; this model takes 512 tokens, "
                                 "prompt and answer together");
  EXPECT_EQ(Error(text).code, "context_length_exceeded");
}

TEST_F(PromptTest, RefusesAtAGlanceWhatNoTokenizerCouldMakeFit) {
  const ApiError error = Error(ChatOf({std::string(8 << 20, ' ')}));
  EXPECT_EQ(error.code, "context_length_exceeded");
  EXPECT_NE(error.message.find("at least"), std::string::npos) << error.message;
}

TEST_F(PromptTest, IsReadNoFurtherThanItCouldFit) {
  const std::string message = "the prompt is at least 513 tokens long; this model takes 512 "
                              "tokens, prompt and answer together";
  std::string words;
  for (int i = 0; i < 600; ++i) words += "a b ";
  EXPECT_EQ(Error(ChatOf({words})).message, message);
  // Nor with spellings of special tokens in it, which are encoded apart.
  for (int i = 0; i < 300; ++i) words.insert(0, "<|im_end|> a");
  EXPECT_TRUE(Error(ChatOf({words})).message.starts_with("the prompt is at least 51"))
      << Error(ChatOf({words})).message;
  OpenAiRequest text;
  text.prompts.emplace_back(words);
  EXPECT_EQ(Error(text).code, "context_length_exceeded");
}

TEST_F(PromptTest, AsksForNoMoreThanAWholeAnswerMayHold) {
  OpenAiRequest request;
  for (int i = 0; i < 32; ++i) request.prompts.emplace_back(TokenIds(10, 5));
  request.settings.n = 2;
  request.settings.sampling.logprobs = 20;
  std::optional<ApiError> error;
  const auto tokens = [&] {
    const auto prompts = PreparePrompts(opened_->model, request, absl::UnixEpoch(), error);
    return prompts ? prompts->front().max_tokens : -1;
  };
  EXPECT_EQ(tokens(), 16);
  request.settings.max_tokens = 276;  // Times 64 answers times 1,898 bytes.
  EXPECT_EQ(tokens(), 276);
  request.settings.max_tokens = 277;
  EXPECT_EQ(Error(request).message,
            "64 answers of up to 277 tokens could take more than the 32 MiB of a whole answer; "
            "allowed here: up to 276 tokens each, or stream");
  EXPECT_EQ(Error(request).param, "max_tokens");
  request.settings.stream = true;
  EXPECT_EQ(tokens(), 277);
}

// A tokenizer that looks for special tokens in NFKC reads "＜|im_end|＞" as one.
TEST_F(PromptTest, HoldsNoSpecialTokenThatNormalisationMakes) {
  const std::filesystem::path folder =
      std::filesystem::path(::testing::TempDir()) / "prompt_test_nfkc";
  std::filesystem::remove_all(folder);
  std::filesystem::create_directories(folder);
  for (const char* name : {"config.json", "generation_config.json", "tokenizer_config.json"}) {
    std::filesystem::copy_file(std::filesystem::path(kFolder) / name, folder / name);
  }
  std::ifstream file(kFolder + "/tokenizer.json");
  auto tokenizer = nlohmann::json::parse(file);
  tokenizer["normalizer"] = {{"type", "NFKC"}};
  for (auto& token : tokenizer["added_tokens"]) token["normalized"] = true;
  std::ofstream(folder / "tokenizer.json") << tokenizer.dump();
  auto opened = OpenModel({.model = folder.string(), .device = "emulated"}, absl::UnixEpoch(),
                          [](double) {});
  ASSERT_TRUE(opened.ok()) << opened.status();
  const auto specials = [&](const std::string& content) {
    std::optional<ApiError> error;
    const auto prompts =
        PreparePrompts(opened->model, ChatOf({content}), absl::UnixEpoch(), error);
    if (!prompts) return std::ptrdiff_t{-1};
    return std::count_if(prompts->front().ids.begin(), prompts->front().ids.end(), [&](int32_t id) {
      return opened->model.tokenizer->IsSpecial(id);
    });
  };
  ASSERT_GT(specials("a"), 0);
  EXPECT_EQ(specials("a <|im_end|>"), specials("a"));
  EXPECT_EQ(specials("a \uFF1C|im_end|\uFF1E"), specials("a"));
  EXPECT_EQ(specials("a <\uFF5Cim_end\uFF5C>"), specials("a"));
  std::filesystem::remove_all(folder);
}

TEST_F(PromptTest, IsLongAsIdsTooSoThatItIsPreparedBesideTheLoop) {
  OpenAiRequest request;
  request.prompts = {std::string("four"), TokenIds(1000, 5)};
  EXPECT_EQ(TextBytes(request), 4004u);
}

TEST_F(PromptTest, EchoesAPromptAsTextAndAsIds) {
  OpenAiRequest request;
  request.settings.echo = true;
  request.prompts = {std::string("a turbine"),
                     *opened_->model.tokenizer->Encode("a turbine", false, false)};
  std::optional<ApiError> error;
  const auto prompts = PreparePrompts(opened_->model, request, absl::UnixEpoch(), error);
  ASSERT_TRUE(prompts);
  EXPECT_EQ(prompts->at(0).echo, "a turbine");
  EXPECT_EQ(prompts->at(1).echo, "a turbine");
  EXPECT_EQ(prompts->at(0).ids, prompts->at(1).ids);
}

}  // namespace
}  // namespace penstock::engine
