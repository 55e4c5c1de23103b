#include "backend-engine/api/serve_options.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace penstock::engine {
namespace {

std::variant<ServeOptions, int> Parse(std::vector<std::string> words) {
  words.insert(words.begin(), "penstock-engine");
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  return ParseCommandLine(static_cast<int>(argv.size()), argv.data());
}

TEST(CommandLine, HasTheDefaultsOfTheStruct) {
  const auto options = std::get<ServeOptions>(Parse({"serve", "--model", "m"}));
  EXPECT_EQ(options.model, "m");
  EXPECT_EQ(options.listen, "127.0.0.1:9001");
  EXPECT_EQ(options.device, "auto");
  EXPECT_EQ(options.tensor_parallel, 1);
  EXPECT_TRUE(options.pin_threads);
  EXPECT_EQ(options.stall_seconds, 60);
  EXPECT_FALSE(std::get<ServeOptions>(Parse({"serve", "--model", "m", "--no-pin-threads"}))
                   .pin_threads);
}

TEST(CommandLine, ReadsWhatItIsGiven) {
  const auto options = std::get<ServeOptions>(
      Parse({"serve", "--model", "m", "--device", "emulated", "--timing", "v100", "--speed", "0.5",
             "--tensor-parallel", "4", "--kv-bytes", "64MiB", "--served-model-name", "a",
             "--served-model-name", "b", "--metrics-compat", "vllm", "--stall-seconds", "600"}));
  EXPECT_EQ(options.stall_seconds, 600);
  EXPECT_EQ(options.speed, 0.5);
  EXPECT_EQ(options.tensor_parallel, 4);
  EXPECT_EQ(options.kv_bytes, 64 << 20);
  EXPECT_EQ(options.served_names, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(options.metrics_compat, "vllm");
}

TEST(CommandLine, EndsWithStatus2WhereItIsWrongAnd0AfterHelp) {
  const std::vector<std::vector<std::string>> wrong = {
      {},
      {"serve"},
      {"serve", "--model"},
      {"serve", "--model", "m", "--tensor-parallel", "0"},
      {"serve", "--model", "m", "--speed", "0"},
      {"serve", "--model", "m", "--device", "abacus"},
      {"serve", "--model", "m", "--kv-bytes", "1MiB", "--kv-blocks", "3"},
      {"serve", "--model", "m", "--nonsense"},
      {"sing"}};
  for (const auto& words : wrong) EXPECT_EQ(std::get<int>(Parse(words)), 2);
  EXPECT_EQ(std::get<int>(Parse({"--help"})), 0);
  EXPECT_EQ(std::get<int>(Parse({"--version"})), 0);
}

}  // namespace
}  // namespace penstock::engine
