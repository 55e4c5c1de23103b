#include "backend-engine/text/tokenizer.h"

#include <gtest/gtest.h>

#include <fstream>
#include <random>
#include <sstream>

#include <nlohmann/json.hpp>

#include "backend-engine/text/byte_level.h"

namespace penstock::engine {
namespace {

using nlohmann::json;

const std::string kLexicon = PENSTOCK_SOURCE_DIR "/backend-engine/models/lexicon-5m";
const std::string kFixtures = PENSTOCK_SOURCE_DIR "/tests/backend-engine/text/fixtures";

std::string ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  EXPECT_TRUE(file.good()) << path;
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

std::unique_ptr<Tokenizer> LoadOrDie(const std::string& dir) {
  auto tokenizer = Tokenizer::Load(dir);
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return std::move(*tokenizer);
}

std::vector<int32_t> Ids(const Tokenizer& tokenizer, std::string_view text, bool add_special = false,
                         bool allow_special = true) {
  const auto ids = tokenizer.Encode(text, add_special, allow_special);
  EXPECT_TRUE(ids.ok()) << ids.status();
  return ids.ok() ? *ids : std::vector<int32_t>();
}

// A tokenizer of the 256 bytes, with `changes` merged into the document.
json SmallDocument() {
  json vocab = json::object();
  for (int byte = 0; byte < 256; ++byte) {
    std::string token;
    AppendChar(ByteToChar(static_cast<uint8_t>(byte)), token);
    vocab[token] = byte;
  }
  vocab["ab"] = 256;
  vocab["abc"] = 257;
  return {{"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", {"a b", "ab c"}}}},
          {"pre_tokenizer",
           {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", true}}},
          {"added_tokens", json::array({{{"id", 258}, {"content", "<s>"}, {"special", true}}})}};
}

std::string ParseError(const json& document) {
  const auto tokenizer = Tokenizer::Parse(document.dump(), "");
  return tokenizer.ok() ? "parsed" : std::string(tokenizer.status().message());
}

TEST(Tokenizer, AgreesWithTheEmbeddedModelsGoldenIds) {
  const auto tokenizer = LoadOrDie(kLexicon);
  const json golden = json::parse(ReadFile(kLexicon + "/golden.json"));
  for (const json& item : golden["answers"]) {
    const std::string prompt = "<|im_start|>user\n" + item["question"].get<std::string>() +
                               "<|im_end|>\n<|im_start|>assistant\n";
    EXPECT_EQ(Ids(*tokenizer, prompt), item["prompt_ids"].get<std::vector<int32_t>>()) << prompt;
    EXPECT_EQ(tokenizer->Decode(item["answer_ids"].get<std::vector<int32_t>>(), true),
              item["answer"].get<std::string>());
  }
  EXPECT_EQ(tokenizer->TokenId("<|im_end|>"), golden["end_of_turn_id"].get<int32_t>());
  EXPECT_EQ(tokenizer->vocab_size(), 2048);
}

class TokenizerFixture : public testing::TestWithParam<const char*> {};

TEST_P(TokenizerFixture, AgreesWithTheTokenizersPackage) {
  const std::string dir = kFixtures + "/" + GetParam();
  const auto tokenizer = LoadOrDie(dir);
  const json fixture = json::parse(ReadFile(dir + "/cases.json"));
  for (const json& item : fixture["cases"]) {
    const auto text = item["text"].get<std::string>();
    const auto ids = item["ids"].get<std::vector<int32_t>>();
    EXPECT_EQ(Ids(*tokenizer, text), ids) << text;
    EXPECT_EQ(Ids(*tokenizer, text, false, false), item["ids_plain"].get<std::vector<int32_t>>())
        << text;
    EXPECT_EQ(Ids(*tokenizer, text, true, true), item["ids_added"].get<std::vector<int32_t>>())
        << text;
    if (item.contains("decoded")) {
      EXPECT_EQ(tokenizer->Decode(ids, true), item["decoded"].get<std::string>()) << text;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Published, TokenizerFixture,
                         testing::Values("llama3", "qwen2", "deepseek_v3"),
                         [](const auto& info) { return std::string(info.param); });

TEST(Tokenizer, GivesBackWhatItWasGiven) {
  // Llama 3's does not normalise, so that every text must survive.
  const auto tokenizer = LoadOrDie(kFixtures + "/llama3");
  for (uint32_t seed = 0; seed < 3000; ++seed) {
    std::mt19937 random(seed);
    std::string text;
    for (uint32_t length = random() % 60; length > 0; --length) {
      static constexpr char32_t kLimits[] = {0x7F, 0x7FF, 0xFFFF, 0x10FFFF, 0x20, 0x3000};
      const char32_t code = random() % (kLimits[random() % 6] + 1);
      if (code < 0xD800 || code > 0xDFFF) AppendChar(code, text);
    }
    EXPECT_EQ(tokenizer->Decode(Ids(*tokenizer, text), false), text) << "seed " << seed;
    EXPECT_EQ(tokenizer->Decode(Ids(*tokenizer, text, false, false), true), text) << seed;
  }
}

TEST(Tokenizer, ReadsInvalidBytesAsReplacementCharacters) {
  const auto tokenizer = LoadOrDie(kFixtures + "/llama3");
  EXPECT_EQ(tokenizer->Decode(Ids(*tokenizer, "a\xff\xc3z\xe2\x82"), false),
            "a\uFFFD\uFFFDz\uFFFD");
}

TEST(Tokenizer, LongHostileTextTakesLinearWork) {
  // Quadratic work on these would outlast the limit of the test.
  for (const char* name : {"llama3", "qwen2", "deepseek_v3"}) {
    const auto tokenizer = LoadOrDie(kFixtures + "/" + name);
    for (const char* unit : {"a", " ", "\n", "1", "!", " \n", "'", "<|end", "\u0315\u0300", "é"}) {
      std::string text;
      while (text.size() < (300 << 10)) text += unit;
      EXPECT_GT(Ids(*tokenizer, text).size(), 100u) << name << " " << unit;
    }
  }
}

TEST(Tokenizer, StopsSoonAfterTheIdsThatWereAskedFor) {
  const auto tokenizer = LoadOrDie(kLexicon);
  std::string text;
  for (int i = 0; i < 2000; ++i) text += "a turbine, <|im_end|> 12 ";
  const auto all = Ids(*tokenizer, text);
  for (const size_t most : {size_t{0}, size_t{1}, size_t{7}, size_t{500}, all.size() - 1}) {
    const auto some = tokenizer->Encode(text, false, true, most);
    ASSERT_TRUE(some.ok());
    // More than asked for, so that it shows; by at most what one piece gives.
    ASSERT_GT(some->size(), most);
    EXPECT_LT(some->size(), most + 10);
    EXPECT_TRUE(std::equal(some->begin(), some->end(), all.begin()));
  }
  EXPECT_EQ(*tokenizer->Encode(text, false, true, all.size()), all);
}

TEST(Tokenizer, RefusesTextBeyondItsLimit) {
  const auto tokenizer = LoadOrDie(kFixtures + "/llama3");
  EXPECT_FALSE(tokenizer->Encode(std::string(kEncodeBytesMax + 1, 'a'), false, false).ok());
}

TEST(Tokenizer, PutsBosInFrontWhereTheConfigSaysSo) {
  const std::string document = SmallDocument().dump();
  const auto with = Tokenizer::Parse(document, R"({"add_bos_token":true,"bos_token":"<s>"})");
  ASSERT_TRUE(with.ok()) << with.status();
  EXPECT_EQ(Ids(**with, "abc", true), (std::vector<int32_t>{258, 257}));
  EXPECT_EQ(Ids(**with, "abc", false), (std::vector<int32_t>{257}));
  const auto object = Tokenizer::Parse(
      document, R"({"add_bos_token":true,"bos_token":{"content":"<s>","lstrip":false}})");
  ASSERT_TRUE(object.ok()) << object.status();
  EXPECT_EQ(Ids(**object, "", true), (std::vector<int32_t>{258}));
  EXPECT_FALSE(Tokenizer::Parse(document, R"({"add_bos_token":true,"bos_token":"<x>"})").ok());
}

TEST(Tokenizer, UnknownIdsAreNothing) {
  const auto tokenizer = Tokenizer::Parse(SmallDocument().dump(), "");
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ((*tokenizer)->Decode(std::vector<int32_t>{-1, 97, 100000, INT32_MAX}, false), "a");
  EXPECT_EQ((*tokenizer)->TokenBytes(-5), "");
  EXPECT_FALSE((*tokenizer)->IsSpecial(-5));
}

TEST(Tokenizer, RefusesByNameWhatItDoesNotUnderstand) {
  const auto changed = [](const char* pointer, const json& value) {
    json document = SmallDocument();
    document[json::json_pointer(pointer)] = value;
    return ParseError(document);
  };
  EXPECT_EQ(ParseError(SmallDocument()), "parsed");
  const std::vector<std::tuple<const char*, json, const char*>> cases = {
      {"/model/type", "Unigram", "supported: BPE"},
      {"/model/byte_fallback", true, "byte_fallback"},
      {"/model/vocab/ab", -1, "\"ab\" has the id -1"},
      {"/model/vocab/ab", 100, "two tokens have the id 100"},
      {"/model/vocab/ab", 1 << 30, "allowed: 0 to"},
      {"/model/vocab/ab", "x", "no number"},
      {"/model/merges", json::array({"a zz"}), "merges[0]: \"zz\" is not in vocab"},
      {"/model/merges", json::array({"ab"}), "expected \"a b\""},
      {"/model/merges", json::array({1}), "expected \"a b\""},
      {"/pre_tokenizer", nullptr, "pre_tokenizer"},
      {"/pre_tokenizer/type", "Metaspace", "\"Metaspace\"; supported"},
      {"/pre_tokenizer/add_prefix_space", true, "add_prefix_space"},
      {"/pre_tokenizer",
       {{"type", "Split"}, {"behavior", "Isolated"}, {"pattern", {{"Regex", "(a"}}}},
       "regular expression, byte 2"},
      {"/normalizer", {{"type", "Lowercase"}}, "\"Lowercase\"; supported"},
      {"/post_processor", {{"type", "BertProcessing"}}, "\"BertProcessing\"; supported"},
      {"/added_tokens/0/content", "", "0 bytes"},
      {"/added_tokens/0/content", std::string(1 << 20, 'x'), "1048576 bytes"},
      {"/added_tokens/0/id", -4, "its id"},
      {"/added_tokens/0/id", 5, "id 5 is already"},
      {"/added_tokens/0/content", "ab", "id 258 here, 256 in vocab"}};
  for (const auto& [pointer, value, expected] : cases) {
    const std::string error = changed(pointer, value);
    EXPECT_NE(error.find(expected), std::string::npos) << pointer << ": " << error;
  }
  json no_byte = SmallDocument();
  no_byte["model"]["vocab"].erase("!");
  EXPECT_NE(ParseError(no_byte).find("no token for byte 0x21"), std::string::npos);
}

TEST(Tokenizer, AHostileExpressionGivesUpInsteadOfHanging) {
  json document = SmallDocument();
  document["pre_tokenizer"] = {
      {"type", "Sequence"},
      {"pretokenizers",
       {{{"type", "Split"}, {"behavior", "Isolated"}, {"pattern", {{"Regex", "(a+)+$|(a|a)*b"}}}},
        {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}}}}};
  const auto tokenizer = Tokenizer::Parse(document.dump(), "");
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  const auto ids = (*tokenizer)->Encode(std::string(200, 'a') + "!", false, false);
  ASSERT_FALSE(ids.ok());
  EXPECT_NE(ids.status().message().find("gave up"), absl::string_view::npos);
}

TEST(Tokenizer, SurvivesDamagedFiles) {
  const std::string good = SmallDocument().dump();
  for (uint32_t seed = 0; seed < 2000; ++seed) {
    std::mt19937 random(seed);
    std::string text = good;
    for (uint32_t edits = 1 + random() % 3; edits > 0; --edits) {
      // Mostly past the vocabulary, where the structure is.
      const size_t low = random() % 4 == 0 ? 0 : text.find("\"pre_tokenizer\"");
      const size_t at = std::min(text.size() - 1, low + random() % (text.size() - low % text.size()));
      if (random() % 2 == 0) {
        text[at] = "{}[]\",:019\\ax"[random() % 13];
      } else {
        text.erase(at, 1 + random() % 6);
      }
    }
    const auto tokenizer = Tokenizer::Parse(text, "");
    if (tokenizer.ok()) Ids(**tokenizer, "abc <s> 'll 12 \n x", true, true);
  }
}

}  // namespace
}  // namespace penstock::engine
