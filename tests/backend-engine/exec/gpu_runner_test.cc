// The whole GPU engine on the emulated GPU: the sources that nvcc compiles, with
// ranks, graphs, paged cache and sampling, against CPU ranks and the embedded
// model's golden answers.
#include "backend-engine/exec/gpu_runner.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#include "backend-engine/exec/gpu_device.h"
#include "backend-engine/exec/thread_place.h"
#include "backend-engine/kernels/cuda/emulated/machine.h"
#include "backend-engine/kernels/cuda/emulated/recording.h"
#include "backend-engine/load/checkpoint.h"
#include "tests/backend-engine/exec/runner_contract.h"

namespace penstock::engine {
namespace {

using Tokens = std::vector<int32_t>;

std::unique_ptr<GpuRunner> Make(const RandomModel& model, const GpuRunnerOptions& options) {
  std::string error;
  auto runner = GpuRunner::Create(model.config(), model.source(), options, error);
  EXPECT_NE(runner, nullptr) << error;
  return runner;
}

std::string CreateError(const RandomModel& model, const GpuRunnerOptions& options) {
  std::string error;
  EXPECT_EQ(GpuRunner::Create(model.config(), model.source(), options, error), nullptr);
  return error;
}

Tokens Ids(int32_t count, int32_t first) {
  Tokens ids;
  for (int32_t i = 0; i < count; ++i) ids.push_back((first + i * 7) % 101);
  return ids;
}

// Logits of a prompt in two chunks beside a sequence that decodes.
std::vector<std::vector<float>> LogitsOf(Runner& runner,
                                         const std::function<std::span<const float>(int)>& kept) {
  Steps steps(runner, 12);
  std::vector<std::vector<float>> logits;
  const auto keep = [&](int32_t count) {
    for (int32_t i = 0; i < count; ++i) {
      const auto row = kept(i);
      logits.emplace_back(row.begin(), row.end());
    }
  };
  steps.Add(0, Ids(37, 3), 0, true);
  steps.Add(1, Ids(70, 9), 0, false);
  steps.Run();
  keep(107);
  steps.Add(0, Ids(1, 50), 37, true);
  steps.Add(1, Ids(30, 1), 70, true);
  steps.Add(2, Ids(1, 8), 0, true);
  steps.Run();
  keep(32);
  return logits;
}

TEST(GpuRunner, GivesTheLogitsOfCpuRanksWithAnyNumberOfRanks) {
  for (const bool tied : {true, false}) {
    ModelConfig config = SmallGpuConfig();
    config.tied_embeddings = tied;
    config.output_bias = config.mlp_bias = !tied;
    const RandomModel model(config, DType::kBf16, 0.15f);
    std::string error;
    const auto cpu = CpuRunner::Create(model.config(), model.source(),
                                       {.block_count = 40, .keep_logits = true}, error);
    ASSERT_NE(cpu, nullptr) << error;
    const auto want = LogitsOf(*cpu, [&](int row) { return cpu->kept_logits(row); });
    double scale = 0;
    for (const float logit : want[0]) scale = std::max(scale, std::fabs(double{logit}));
    for (const size_t ranks : {1, 2, 4}) {
      const auto gpu = Make(model, {.gpus = std::vector<int>(ranks, 0), .block_count = 40,
                                    .max_step_tokens = 160, .max_sequences = 8,
                                    .keep_logits = true});
      const auto got = LogitsOf(*gpu, [&](int row) { return gpu->kept_logits(row); });
      ASSERT_EQ(got.size(), want.size());
      for (size_t row = 0; row < want.size(); ++row) {
        for (size_t i = 0; i < want[row].size(); ++i) {
          ASSERT_NEAR(got[row][i], want[row][i], 0.03 * scale)
              << ranks << " ranks, row " << row << ", logit " << i;
        }
      }
    }
  }
}

TEST(GpuRunner, RanksThatGetNoThreadAreAMessage) {
  const RandomModel model(SmallGpuConfig());
  ExpectRanksWithoutThreadsAreAMessage([&] {
    return CreateError(model, {.gpus = {0, 0}, .block_count = 8, .max_step_tokens = 16,
                               .max_sequences = 2});
  });
}

TEST(GpuRunner, EveryKernelIsLoadedBeforeARankWaitsForAnother) {
  const RandomModel model(SmallGpuConfig());
  const auto runner = Make(model, {.gpus = {0, 0}, .block_count = 40, .max_step_tokens = 128,
                                   .max_sequences = 4, .max_length = 160});
  ASSERT_NE(runner, nullptr);
  Steps steps(*runner, 12);
  steps.Add(0, Ids(40, 3), 0, true);
  steps.Run();
  steps.Add(0, Ids(1, 50), 40, true);
  steps.Run();
  EXPECT_EQ(emulated::LaunchedUnloaded(), 0) << "load_kernels.cu does not load a kernel";
}

TEST(GpuRunner, ARecordedGraphGivesTheTokensOfAStepQueuedAsItIs) {
  const RandomModel model(SmallGpuConfig(), DType::kBf16, 0.15f);
  for (const size_t ranks : {1, 2}) {
    std::vector<std::vector<Tokens>> answers;
    for (const bool graphs : {true, false}) {
      const auto runner = Make(model, {.gpus = std::vector<int>(ranks, 0), .block_count = 60,
                                       .max_step_tokens = 64, .max_sequences = 5,
                                       .graphs = graphs});
      Steps steps(*runner, 12);
      // Three sequences: the bucket of four is padded. Later fewer.
      answers.push_back(steps.Greedy({Ids(5, 1), Ids(20, 2), Ids(17, 5)}, 9, 40));
    }
    EXPECT_EQ(answers[0], answers[1]);
  }
}

TEST(GpuRunner, SamplesLikeCpuRanksByTheRequestsOwnSettings) {
  const RandomModel model(SmallGpuConfig(), DType::kF32, 0.15f);
  const auto gpu = Make(model, {.block_count = 40, .max_step_tokens = 64, .max_sequences = 8});
  Steps steps(*gpu, 8);
  const Tokens history = {1, 2, 3, 4, 4};
  const SamplingParams forced{.temperature = 1.0f, .seed = 5, .logprobs = 2,
                              .logit_bias = {{77, 100.0f}}};
  steps.Add(0, {1, 2, 3}, 0, true, &forced);
  steps.Add(1, {7, 7}, 0, false);
  steps.Add(2, {9}, 0, true);
  const StepResult& result = steps.Run();
  ASSERT_EQ(result.sampled.size(), 2u);
  EXPECT_EQ(result.sampled[0].token, 77);
  EXPECT_EQ(result.sampled[0].top.size(), 2u);
  EXPECT_LT(result.sampled[0].logprob, 0.0f);
  EXPECT_TRUE(result.sampled[1].top.empty());
  EXPECT_EQ(result.sampled[1].id, 2u);
}

std::unique_ptr<Runner> MakeForContract(const RandomModel& model, int ranks, int32_t blocks) {
  return Make(model, {.gpus = std::vector<int>(static_cast<size_t>(ranks), 0),
                      .block_count = blocks, .max_step_tokens = 16, .max_sequences = 8});
}

TEST(GpuRunner, LogitsThatAreNotFiniteSpoilTheirOwnSequenceOnly) {
  ExpectLogitsThatAreNotFiniteSpoilTheirOwnSequence(SmallGpuConfig(), MakeForContract);
}

// The block after the last one is the padding's own.
TEST(GpuRunner, APlanOutOfBoundsFailsWithItsNumbers) {
  ExpectAPlanOutOfBoundsFails(SmallGpuConfig(), MakeForContract);
}

TEST(GpuRunner, AbortMakesTheNextRunFail) {
  ExpectAbortFailsTheNextRun(SmallGpuConfig(), MakeForContract);
}

TEST(GpuRunner, AddsUpWhatItsStepsTookOnTheGpu) {
  const RandomModel model(SmallGpuConfig());
  const auto runner = Make(model, {.gpus = {0, 0}, .block_count = 36});
  EXPECT_EQ(runner->busy_seconds(), 0);
  emulated::SetMilliseconds(2.5f);
  Steps steps(*runner, 12);
  for (int32_t turn = 0; turn < 3; ++turn) {
    steps.Add(0, Ids(1, 5), turn, true);
    steps.Run();
  }
  emulated::SetMilliseconds(0);
  EXPECT_NEAR(runner->busy_seconds(), 0.0075, 1e-9);
  EXPECT_FALSE(runner->sums().entries().empty());
}

TEST(GpuRunner, SaysWhatItIsAndWhereTheMemoryWent) {
  emulated::SetGpuMemory(int64_t{1} << 30);
  const auto runner = Make(RandomModel(SmallGpuConfig()), {.gpus = {0, 0}, .max_step_tokens = 16,
                                                     .max_sequences = 3});
  emulated::SetGpuMemory(int64_t{8} << 30);
  EXPECT_EQ(runner->info().device, "cuda");
  EXPECT_EQ(runner->info().tensor_parallel, 2);
  EXPECT_EQ(runner->info().block_count, 3 * 13);  // 200 tokens in blocks of 16, three times.
  EXPECT_NE(runner->notes().find("GPU 0 (emulated GPU): 1.00 of 1.00 GiB free, 0.50 for each of 2 "
                                 "ranks = weights"),
            std::string::npos)
      << runner->notes();
  EXPECT_NE(runner->notes().find("-> one_shot"), std::string::npos);
  ASSERT_EQ(runner->info().gpus.size(), 1u);  // Two ranks, one GPU.
  const GpuInUse& gpu = runner->info().gpus[0];
  EXPECT_EQ(gpu.bus_id, "0000:00:00.0");
  int64_t sum = 0;
  for (const GpuInUse::Part& part : gpu.memory) sum += part.bytes;
  EXPECT_EQ(sum, int64_t{1} << 30);
}

TEST(GpuRunner, APoolShorterThanTheModelsLongestTextCutsThePositions) {
  ModelConfig config = SmallGpuConfig();
  config.max_positions = 50000;
  const auto runner = Make(RandomModel(config, DType::kBf16, 0.15f),
                           {.block_count = 4, .max_step_tokens = 16, .max_sequences = 2});
  Steps steps(*runner, 2);
  EXPECT_EQ(steps.Greedy({Ids(9, 2)}, 3, -1).at(0).size(), 3u);
}

TEST(GpuRunner, KeepsItsThreadsNearTheirGpuUnlessToldNotTo) {
  const std::filesystem::path sysfs = std::filesystem::temp_directory_path() /
                                      ("penstock_near_" + std::to_string(getpid()));
  const auto write = [&](const char* path, const std::string& text) {
    std::filesystem::create_directories((sysfs / path).parent_path());
    std::ofstream(sysfs / path) << text;
  };
  const std::vector<int> before = CpusOfThisThread();
  write("bus/pci/devices/0000:00:00.0/numa_node", "0\n");
  write("devices/system/node/node0/cpulist", std::to_string(before.back()) + "\n");
  const RandomModel model(SmallGpuConfig());
  for (const bool pins : {true, false}) {
    std::thread([&] {
      const auto runner = Make(model, {.gpus = {0, 0}, .max_step_tokens = 4, .max_sequences = 1,
                                       .pin_threads = pins, .sysfs = sysfs.string()});
      EXPECT_EQ(CpusOfThisThread(), before);  // Whoever starts a runner goes where it likes.
      EXPECT_EQ(runner->notes().find("GPU 0: threads stay on 1 CPUs of NUMA node 0") !=
                    std::string::npos, pins) << runner->notes();
      Steps steps(*runner, 2);
      steps.Add(0, {1}, 0, true);
      steps.Run();
      EXPECT_EQ(CpusOfThisThread(), pins ? std::vector<int>{before.back()} : before);
    }).join();
  }
  std::filesystem::remove_all(sysfs);
  EXPECT_NE(Make(model, {.max_step_tokens = 4, .max_sequences = 1, .sysfs = sysfs.string()})
                ->notes().find("GPU 0: threads stay where they are: "), std::string::npos);
}

TEST(GpuRunner, TooLittleMemoryIsAMessageWithTheArithmetic) {
  emulated::SetGpuMemory(int64_t{40} << 20);
  const std::string error = CreateError(RandomModel(SmallGpuConfig()), {.max_step_tokens = 4096});
  emulated::SetGpuMemory(int64_t{8} << 30);
  EXPECT_NE(error.find("GPU 0 (emulated GPU): 0.04 of 0.04 GiB free; weights 0.00 + step"),
            std::string::npos)
      << error;
  EXPECT_NE(error.find("for the KV cache, which needs at least 15 %"), std::string::npos) << error;
}

TEST(GpuRunner, WhatTheKernelsDoNotTakeIsRefusedAtStart) {
  ModelConfig config = SmallGpuConfig();
  config.head_dim = 80;
  EXPECT_NE(CreateError(RandomModel(config), {}).find("head_dim is 80"), std::string::npos);
  EXPECT_NE(CreateError(RandomModel(SmallGpuConfig()), {.block_tokens = 24}).find("powers of two"),
            std::string::npos);
  EXPECT_EQ(CreateError(RandomModel(SmallGpuConfig()), {.max_sequences = 65536}),
            "max_sequences is 65536; the GPU's kernels take at most 65535 in a step; lower "
            "--max-running");
  EXPECT_NE(CreateError(RandomModel(SmallGpuConfig()), {.gpus = {3}}).find("GPU 3 is asked for"),
            std::string::npos);
  RandomModel model(SmallGpuConfig());
  model.Remove("model.layers.1.mlp.down_proj.weight");
  EXPECT_EQ(CreateError(model, {.gpus = {0, 0}}),
            "tensor model.layers.1.mlp.down_proj.weight is missing; expected it with shape "
            "[56, 75]");
}

TEST(GpuDevice, FindsTheGpuAndOpensARunnerOnIt) {
  EXPECT_EQ(FindGpuDevice().gpus, 1);
  EXPECT_EQ(FindGpuDevice().name, "emulated GPU");
  emulated::SetGpuCount(0);
  EXPECT_EQ(FindGpuDevice().why_not, "no GPU can be used (there is none)");
  emulated::SetGpuCount(1);
  const RandomModel model(SmallGpuConfig());
  std::string notes, error;
  const auto runner = OpenGpuRunner(model.config(), model.source(),
                                    {.max_step_tokens = 4, .max_sequences = 1}, notes, error);
  ASSERT_NE(runner, nullptr) << error;
  EXPECT_NE(notes.find("1 CUDA graphs of decode steps"), std::string::npos) << notes;
}

// A few of them: the emulated GPU is slow. tests/gpu/check asks all.
TEST(GpuRunner, GivesTheEmbeddedModelsGoldenAnswers) {
  const std::string dir = PENSTOCK_SOURCE_DIR "/backend-engine/models/lexicon-5m";
  const auto golden = nlohmann::json::parse(std::ifstream(dir + "/golden.json"));
  const auto checkpoint = Checkpoint::Open(dir);
  ASSERT_TRUE(checkpoint.ok());
  std::vector<Tokens> prompts, want;
  for (size_t i = 0; i < 5; ++i) {
    prompts.push_back(golden.at("answers")[i].at("prompt_ids").get<Tokens>());
    want.push_back(golden.at("answers")[i].at("answer_ids").get<Tokens>());
    want.back().resize(std::min<size_t>(want.back().size(), 6));
  }
  std::string error;
  for (const size_t ranks : {1, 2, 4}) {
    const auto runner = GpuRunner::Create(
        (*checkpoint)->config(), (*checkpoint)->source(),
        {.gpus = std::vector<int>(ranks, 0), .block_count = 5 * 32, .max_step_tokens = 128,
         .max_sequences = 5}, error);
    ASSERT_NE(runner, nullptr) << error;
    Steps steps(*runner);
    EXPECT_EQ(steps.Greedy(prompts, 6, golden.at("end_of_turn_id").get<int32_t>()), want)
        << ranks << " ranks";
  }
}

}  // namespace
}  // namespace penstock::engine
