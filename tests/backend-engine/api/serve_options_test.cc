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
      {"serve", "--model", "m", "--speed", "nan"},
      {"serve", "--model", "m", "--speed", "-nan"},
      {"serve", "--model", "m", "--speed", "inf"},
      {"serve", "--model", "m", "--max-length", "1"},
      {"serve", "--model", "m", "--kv-blocks", "2147483647"},
      {"serve", "--model", "m", "--step-tokens", "1048576"},
      {"serve", "--model", "m", "--max-running", "1048576"},
      {"serve", "--model", "m", "--device", "abacus"},
      {"serve", "--model", "m", "--kv-bytes", "1MiB", "--kv-blocks", "3"},
      {"serve", "--model", "m", "--nonsense"},
      {"sing"}};
  for (const auto& words : wrong) EXPECT_EQ(std::get<int>(Parse(words)), 2);
  EXPECT_EQ(std::get<int>(Parse({"--help"})), 0);
  EXPECT_EQ(std::get<int>(Parse({"--version"})), 0);
}

TEST(CommandLine, SeveralProcessesAreCalledAsUsersOfOthersKnowThem) {
  const auto options = std::get<ServeOptions>(
      Parse({"serve", "--model", "m", "--tensor-parallel", "16", "--nnodes", "2", "--node-rank",
             "1", "--dist-init-addr", "10.0.0.1:7100", "--dist-timeout", "60"}));
  EXPECT_EQ(options.nnodes, 2);
  EXPECT_EQ(options.node_rank, 1);
  EXPECT_EQ(options.dist_init_addr, "10.0.0.1:7100");
  EXPECT_EQ(options.dist_timeout, 60);
  EXPECT_EQ(options.ranks_here(), 8);
}

TEST(CommandLine, ProcessesThatCannotBeAreRefusedByName) {
  const ServeOptions good{.tensor_parallel = 4, .nnodes = 2, .dist_init_addr = "10.0.0.1:7100"};
  EXPECT_EQ(CheckProcesses(good), "");
  EXPECT_EQ(CheckProcesses({}), "");
  const auto with = [&good](const auto& change) {
    ServeOptions options = good;
    change(options);
    return CheckProcesses(options);
  };
  EXPECT_EQ(with([](ServeOptions& o) { o.node_rank = 2; }),
            "--node-rank 2 of --nnodes 2: they are counted from 0 to 1");
  EXPECT_EQ(with([](ServeOptions& o) { o.tensor_parallel = 3; }),
            "--tensor-parallel 3 cannot be cut into --nnodes 2 equal parts; it counts the ranks of "
            "all processes");
  EXPECT_EQ(with([](ServeOptions& o) { o.device = "cpu"; }),
            "--nnodes 2: processes compute together on GPUs alone, and --device is cpu");
  EXPECT_EQ(with([](ServeOptions& o) { o.dist_init_addr = ""; }),
            "--dist-init-addr: '' is no place to meet at; an address or a name and a port are, like "
            "10.0.0.1:7100, [fd00::1]:7100 or head:7100");
  EXPECT_EQ(with([](ServeOptions& o) { o.nnodes = 1; }),
            "--node-rank and --dist-init-addr are for several processes; say how many with "
            "--nnodes");
  EXPECT_EQ(std::get<int>(Parse({"serve", "--model", "m", "--node-rank", "1"})), 2);
}

}  // namespace
}  // namespace penstock::engine
