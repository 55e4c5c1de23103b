// Model folders as they come: the embedded one with its files changed, on the emulated device.
#include "backend-engine/api/open_model.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

namespace penstock::engine {
namespace {

using nlohmann::json;

class OpenModelTest : public ::testing::Test {
 protected:
  OpenModelTest() {
    char name[] = "/tmp/open_model_XXXXXX";
    folder_ = mkdtemp(name);
    for (const char* file : {"config.json", "generation_config.json", "tokenizer_config.json",
                             "tokenizer.json"}) {
      std::filesystem::copy_file(std::filesystem::path(PENSTOCK_SOURCE_DIR) /
                                     "backend-engine/models/lexicon-5m" / file,
                                 folder_ / file);
    }
  }
  ~OpenModelTest() override { std::filesystem::remove_all(folder_); }

  void Change(const std::string& file, const json& changes) {
    json document;
    std::ifstream(folder_ / file) >> document;
    document.merge_patch(changes);  // null takes a field out.
    std::ofstream(folder_ / file) << document.dump();
  }

  absl::StatusOr<OpenedModel> Open(ServeOptions options = {}) {
    options.model = folder_.string();
    options.device = "emulated";
    return OpenModel(options, absl::UnixEpoch(), [](double) {});
  }

  std::filesystem::path folder_;
};

TEST_F(OpenModelTest, EndsAnswersByTheEosOfAllThreeFiles) {
  Change("config.json", {{"eos_token_id", 7}});
  Change("generation_config.json", {{"eos_token_id", {2045, 7}}});
  const auto opened = Open();
  ASSERT_TRUE(opened.ok()) << opened.status();
  EXPECT_EQ(opened->model.eos, (std::vector<int32_t>{7, 2045, 2047}));
  EXPECT_EQ(opened->start_notes.find("no token ends an answer"), std::string::npos);
}

TEST_F(OpenModelTest, ATokenizerMayBeTheOnlyOneToNameAnEnd) {
  Change("config.json", {{"eos_token_id", nullptr}});
  Change("generation_config.json", {{"eos_token_id", nullptr}});
  Change("tokenizer_config.json", {{"eos_token", {{"content", "<|endoftext|>"}}}});
  const auto opened = Open();
  ASSERT_TRUE(opened.ok()) << opened.status();
  EXPECT_EQ(opened->model.eos, (std::vector<int32_t>{2045}));
}

TEST_F(OpenModelTest, ALengthThatTheModelDoesNotReachIsRefusedAndOneThatItReachesIsTaken) {
  EXPECT_EQ(Open({.max_length = 513}).status().message(),
            "--max-length 513: this model reaches 512 tokens, by max_position_embeddings in "
            "config.json and what rope_scaling makes of it; lower it, or leave it out");
  EXPECT_EQ(Open({.max_length = 512})->model.max_length, 512);
  EXPECT_EQ(Open({.max_length = 99})->model.max_length, 99);
}

TEST_F(OpenModelTest, StretchedPositionsReachAsFarAsTheyAreStretched) {
  Change("config.json", {{"rope_scaling", {{"type", "yarn"}, {"factor", 4.0},
                                           {"original_max_position_embeddings", 512}}}});
  EXPECT_EQ(Open()->model.max_length, 2048);
  EXPECT_EQ(Open({.max_length = 2048})->model.max_length, 2048);
  EXPECT_FALSE(Open({.max_length = 2049}).ok());
  Change("config.json", {{"rope_scaling", {{"type", "dynamic"}}}});
  EXPECT_EQ(Open()->model.max_length, 512);
  EXPECT_EQ(Open({.max_length = 2048})->model.max_length, 2048);
}

TEST_F(OpenModelTest, SaysAtStartThatNoTokenEndsAnAnswer) {
  Change("config.json", {{"eos_token_id", nullptr}});
  Change("generation_config.json", {{"eos_token_id", nullptr}});
  Change("tokenizer_config.json", {{"eos_token", "<|unknown|>"}});
  const auto opened = Open();
  ASSERT_TRUE(opened.ok()) << opened.status();
  EXPECT_TRUE(opened->model.eos.empty());
  EXPECT_NE(opened->start_notes.find("no token ends an answer"), std::string::npos);
}

}  // namespace
}  // namespace penstock::engine
