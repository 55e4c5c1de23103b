#include "backend-engine/load/checkpoint.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "tests/backend-engine/load/small_checkpoint.h"

namespace penstock::engine {
namespace {

const std::string kLexicon = PENSTOCK_SOURCE_DIR "/backend-engine/models/lexicon-5m";

std::string OpenError(const std::string& dir) {
  const auto checkpoint = Checkpoint::Open(dir);
  return checkpoint.ok() ? "opened" : std::string(checkpoint.status().message());
}

void ExpectContains(const std::string& text, const std::string& part) {
  EXPECT_NE(text.find(part), std::string::npos) << text << "\nlacks: " << part;
  EXPECT_EQ(text.find('\n'), std::string::npos) << text;
}

TEST(Checkpoint, OpensTheEmbeddedModel) {
  const auto checkpoint = Checkpoint::Open(kLexicon + "/");
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  const ModelConfig& config = (*checkpoint)->config();
  EXPECT_EQ(config.architecture, Architecture::kQwen2);
  EXPECT_EQ(config.name, "lexicon-5m");
  EXPECT_EQ(config.head_dim, 64);
  EXPECT_TRUE(config.tied_embeddings);
  EXPECT_EQ(config.eos_token_ids, (std::vector<int32_t>{2047, 2045}));
  EXPECT_EQ((*checkpoint)->generation_defaults().temperature, 0.0);
  EXPECT_EQ((*checkpoint)->generation_defaults().max_new_tokens, 96);

  const auto embeddings = (*checkpoint)->source()("model.embed_tokens.weight");
  ASSERT_TRUE(embeddings.has_value());
  EXPECT_EQ(embeddings->shape, (std::vector<int64_t>{2048, 256}));
  EXPECT_EQ(embeddings->bytes.size(), 2048u * 256 * SizeOf(DType::kBf16));
  EXPECT_FALSE((*checkpoint)->Find("no.such.tensor").has_value());
  EXPECT_TRUE((*checkpoint)->CheckUnchanged().ok());
}

TEST(Checkpoint, HashesTheSameWeightsAlikeHoweverTheyAreSharded) {
  SmallCheckpoint whole;
  whole.Write();
  SmallCheckpoint sharded;
  sharded.WriteSharded();
  const auto a = Checkpoint::Open(whole.dir());
  const auto b = Checkpoint::Open(sharded.dir());
  ASSERT_TRUE(a.ok()) << a.status();
  ASSERT_TRUE(b.ok()) << b.status();
  EXPECT_EQ((*a)->weights_hash(), (*b)->weights_hash());
  EXPECT_EQ((*a)->weight_bytes(), (*b)->weight_bytes());
  EXPECT_EQ((*a)->weights_hash_hex().size(), 16u);

  SmallCheckpoint other;
  other.tensors["model.norm.weight"].bytes[3] ^= 1;
  other.Write();
  const auto c = Checkpoint::Open(other.dir());
  ASSERT_TRUE(c.ok()) << c.status();
  EXPECT_NE((*a)->weights_hash(), (*c)->weights_hash());
}

TEST(Checkpoint, NamesEveryTensorThatDoesNotFitTheConfig) {
  SmallCheckpoint checkpoint;
  checkpoint.tensors.erase("model.layers.0.mlp.up_proj.weight");
  std::swap(checkpoint.tensors["model.layers.0.mlp.down_proj.weight"].shape[0],
            checkpoint.tensors["model.layers.0.mlp.down_proj.weight"].shape[1]);
  checkpoint.Write();
  const std::string error = OpenError(checkpoint.dir());
  ExpectContains(error, "model.layers.0.mlp.up_proj.weight missing, expected [6, 4]");
  ExpectContains(error, "model.layers.0.mlp.down_proj.weight is [6, 4], expected [4, 6]");
}

TEST(Checkpoint, RefusesWeightsThatTheConfigDoesNotAccountFor) {
  const auto with = [](const std::vector<std::string>& more) {
    SmallCheckpoint checkpoint;
    for (const std::string& name : more) {
      checkpoint.tensors[name] = {.shape = {1}, .bytes = std::string(4, 'x')};
    }
    checkpoint.Write();
    return OpenError(checkpoint.dir());
  };
  ExpectContains(with({"model.layers.0.self_attn.q_proj.bias", "model.layers.0.self_attn.k_proj.bias"}),
                 "2 tensor(s) that a model as in config.json does not have, so that its answers "
                 "would be wrong: model.layers.0.self_attn.k_proj.bias, "
                 "model.layers.0.self_attn.q_proj.bias; config.json says that there are no such "
                 "biases: is its model_type right, are attention_bias and mlp_bias?");
  ExpectContains(with({"model.layers.1.mlp.up_proj.weight", "model.layers.2.a", "model.layers.2.b",
                       "model.layers.2.c", "model.layers.2.d"}),
                 "model.layers.2.c and 1 more; num_hidden_layers in config.json is 1: too few?");
  ExpectContains(with({"model.layers.0.self_attn.q_norm.weight"}), "another architecture");
  EXPECT_EQ(with({"model.layers.0.self_attn.rotary_emb.inv_freq"}), "opened");
}

TEST(Checkpoint, TiedEmbeddingsMayBeStoredTwice) {
  SmallCheckpoint checkpoint;
  checkpoint.Write();
  std::string config;
  std::getline(std::ifstream(checkpoint.dir() + "/config.json"), config, '\0');
  config.insert(1, R"("tie_word_embeddings":true,)");
  checkpoint.WriteText("config.json", config);
  EXPECT_EQ(OpenError(checkpoint.dir()), "opened");
}

TEST(Checkpoint, RefusesAFileCutAnywhere) {
  SmallCheckpoint checkpoint;
  checkpoint.Write();
  const std::string path = checkpoint.dir() + "/model.safetensors";
  const auto size = std::filesystem::file_size(path);
  for (uint64_t cut = size; cut-- > 0; cut -= std::min<uint64_t>(cut, 37)) {
    std::filesystem::resize_file(path, cut);
    EXPECT_NE(OpenError(checkpoint.dir()), "opened") << cut;
  }
}

TEST(Checkpoint, NoticesThatAFileWasWrittenToWhileLoading) {
  SmallCheckpoint files;
  files.Write();
  const auto checkpoint = Checkpoint::Open(files.dir());
  ASSERT_TRUE(checkpoint.ok());
  std::ofstream(files.dir() + "/model.safetensors", std::ios::app) << "x";
  EXPECT_FALSE((*checkpoint)->CheckUnchanged().ok());
}

TEST(Checkpoint, RefusesWeightsOfATypeItCannotCompute) {
  SmallCheckpoint checkpoint;
  auto& tensor = checkpoint.tensors["model.norm.weight"];
  tensor.dtype = "F8_E4M3";
  tensor.bytes.resize(4);
  checkpoint.Write();
  ExpectContains(OpenError(checkpoint.dir()), "\"model.norm.weight\": dtype F8_E4M3; this engine");
}

TEST(Checkpoint, TheIndexNamesOnlyFilesOfItsOwnFolder) {
  for (const char* bad : {"../x.safetensors", "/etc/x.safetensors", ".safetensors", "a/b.safetensors",
                          "model.bin", ""}) {
    SmallCheckpoint checkpoint;
    checkpoint.WriteSharded();
    checkpoint.WriteText("model.safetensors.index.json",
                         R"({"weight_map":{"model.norm.weight":")" + std::string(bad) + "\"}}");
    ExpectContains(OpenError(checkpoint.dir()), "is not the name of a .safetensors file");
  }
}

TEST(Checkpoint, TheIndexMustBeTrue) {
  SmallCheckpoint checkpoint;
  checkpoint.WriteSharded();
  const auto with_index = [&](const std::string& text) {
    checkpoint.WriteText("model.safetensors.index.json", text);
    return OpenError(checkpoint.dir());
  };
  ExpectContains(with_index(R"({"weight_map":{"model.norm.weight":"gone.safetensors"}})"),
                 "gone.safetensors: cannot be opened");
  ExpectContains(with_index(R"({"weight_map":{"no.such":"a.safetensors"}})"), "does not hold it");
  ExpectContains(with_index(R"({"weight_map":{"x":1}})"), "no file name");
  ExpectContains(with_index(R"({"weight_map":[]})"), "missing or empty");
  ExpectContains(with_index(R"([])"), "missing or empty");
  ExpectContains(with_index(R"({"weight_map":{)"), "not valid JSON");
}

TEST(Checkpoint, SaysWhatIsMissingFromAFolder) {
  ExpectContains(OpenError("/nonexistent"), "no such folder");
  SmallCheckpoint checkpoint;
  ExpectContains(OpenError(checkpoint.dir()), "config.json: cannot be opened");
  checkpoint.Write();
  std::filesystem::remove(checkpoint.dir() + "/model.safetensors");
  ExpectContains(OpenError(checkpoint.dir()), "neither model.safetensors nor");
  checkpoint.WriteText("pytorch_model.bin", "x");
  ExpectContains(OpenError(checkpoint.dir()), "a pickle, which can run code, is never read");
}

TEST(Checkpoint, DoesNotWaitOnAPipeInPlaceOfAFile) {
  SmallCheckpoint checkpoint;
  checkpoint.Write();
  const std::string path = checkpoint.dir() + "/model.safetensors";
  std::filesystem::remove(path);
  ASSERT_EQ(mkfifo(path.c_str(), 0600), 0);
  ExpectContains(OpenError(checkpoint.dir()), "not a regular file");
}

}  // namespace
}  // namespace penstock::engine
