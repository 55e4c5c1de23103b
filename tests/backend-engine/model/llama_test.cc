// The decoder against its plain twin over every feature of a configuration,
// and against itself: cut into chunks, mixed into batches, spread over ranks.
#include "backend-engine/model/llama.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>

#include "tests/backend-engine/model/plain_forward.h"
#include "tests/backend-engine/model/random_model.h"
#include "tests/backend-engine/model/steps.h"

namespace penstock::engine {
namespace {

using Tokens = std::vector<int32_t>;

Tokens RandomTokens(uint32_t seed, size_t count, int64_t vocab) {
  std::mt19937 random(seed);
  Tokens tokens(count);
  for (int32_t& token : tokens) {
    token = static_cast<int32_t>(random() % static_cast<uint32_t>(vocab));
  }
  return tokens;
}

std::unique_ptr<CpuRunner> MakeRunner(const RandomModel& model, int ranks,
                                      std::optional<DType> dtype = std::nullopt,
                                      const Kernels* kernels = nullptr) {
  const CpuRunnerOptions options{.ranks = ranks, .dtype = dtype, .block_tokens = 8,
                                 .block_count = 12 * 6, .max_step_tokens = 128,
                                 .max_sequences = 6, .kernels = kernels, .keep_logits = true};
  std::string error;
  auto runner = CpuRunner::Create(model.config(), model.source(), options, error);
  EXPECT_NE(runner, nullptr) << error;
  return runner;
}

// The logits of all positions when the prompt goes in by chunks of these sizes.
std::vector<float> ChunkedLogits(CpuRunner& runner, const Tokens& prompt, size_t chunk) {
  Steps steps(runner, 12);
  std::vector<float> all;
  for (size_t first = 0; first < prompt.size(); first += chunk) {
    const size_t end = std::min(first + chunk, prompt.size());
    steps.Add(2, Tokens(prompt.begin() + static_cast<long>(first),
                        prompt.begin() + static_cast<long>(end)),
              static_cast<int32_t>(first), end == prompt.size());
    steps.Run();
    for (size_t i = 0; i < end - first; ++i) {
      const auto row = runner.kept_logits(static_cast<int32_t>(i));
      all.insert(all.end(), row.begin(), row.end());
    }
  }
  return all;
}

void ExpectPlainLogits(const RandomModel& model, int ranks, const Kernels* kernels = nullptr) {
  const Tokens prompt = RandomTokens(5, 41, model.config().vocab_size);
  const auto runner = MakeRunner(model, ranks, DType::kF32, kernels);
  const std::vector<float> got = ChunkedLogits(*runner, prompt, 64);
  const auto want = PlainForward(model).Run(prompt);
  const auto vocab = static_cast<size_t>(model.config().vocab_size);
  for (size_t t = 0; t < prompt.size(); ++t) {
    for (size_t i = 0; i < vocab; ++i) {
      ASSERT_NEAR(got[t * vocab + i], want[t][i], 2e-4 * (1 + std::fabs(want[t][i])))
          << "position " << t << ", token " << i << ", ranks " << ranks;
    }
  }
}

TEST(Llama, MatchesThePlainForwardAtEveryRankCount) {
  const RandomModel model(SmallConfig());
  for (const int ranks : {1, 2, 4}) ExpectPlainLogits(model, ranks);
}

TEST(Llama, MatchesThePlainForwardAtEveryKernelLevel) {
  const RandomModel model(SmallConfig());
  for (const CpuLevel level : kCpuLevels) {
    if (const Kernels* kernels = KernelsAt(level)) ExpectPlainLogits(model, 2, kernels);
  }
}

TEST(Llama, EveryBiasAndAnUntiedHeadCount) {
  ModelConfig config = SmallConfig();
  config.architecture = Architecture::kLlama;
  config.output_bias = true;
  config.mlp_bias = true;
  config.tied_embeddings = false;
  const RandomModel model(config, DType::kF32);
  for (const int ranks : {1, 2, 4}) ExpectPlainLogits(model, ranks);
  config.qkv_bias = config.output_bias = config.mlp_bias = false;
  ExpectPlainLogits(RandomModel(config, DType::kF16), 2);
}

TEST(Llama, EveryShapeOfHeadsCounts) {
  struct Heads {
    int64_t query, kv, dim;
  };
  for (const Heads heads : {Heads{4, 4, 16}, {4, 1, 32}, {8, 2, 6}, {12, 4, 18}}) {
    ModelConfig config = SmallConfig();
    config.head_count = heads.query;
    config.kv_head_count = heads.kv;
    config.head_dim = heads.dim;
    const RandomModel model(config);
    for (const int ranks : {1, 2, 4}) ExpectPlainLogits(model, ranks);
  }
}

TEST(Llama, EveryKindOfRopeReachesTheLogits) {
  for (const RopeKind kind : {RopeKind::kLinear, RopeKind::kDynamic, RopeKind::kLlama3,
                              RopeKind::kYarn}) {
    ModelConfig config = SmallConfig();
    config.rope.kind = kind;
    config.rope.factor = 4;
    config.rope.original_max_positions = 24;
    ExpectPlainLogits(RandomModel(config), 1);
  }
}

TEST(Llama, APromptInChunksGetsTheSameBitsAsInOnePiece) {
  const RandomModel model(SmallConfig());
  const Tokens prompt = RandomTokens(6, 53, model.config().vocab_size);
  for (const auto dtype : {std::optional<DType>(), std::optional<DType>(DType::kF32)}) {
    for (const int ranks : {1, 2}) {
      const auto runner = MakeRunner(model, ranks, dtype);
      const std::vector<float> whole = ChunkedLogits(*runner, prompt, prompt.size());
      for (const size_t chunk : {1, 7, 16}) {
        const std::vector<float> chunked = ChunkedLogits(*runner, prompt, chunk);
        EXPECT_EQ(std::memcmp(whole.data(), chunked.data(), whole.size() * sizeof(float)), 0)
            << "chunks of " << chunk << " at " << ranks << " ranks";
      }
    }
  }
}

TEST(Llama, ASequenceInABatchGetsTheSameBitsAsAlone) {
  const RandomModel model(SmallConfig());
  const auto vocab = static_cast<size_t>(model.config().vocab_size);
  for (const int ranks : {1, 4}) {
    const auto runner = MakeRunner(model, ranks);
    std::vector<Tokens> prompts;
    std::vector<std::vector<float>> alone;
    for (uint32_t i = 0; i < 6; ++i) {
      prompts.push_back(RandomTokens(70 + i, 3 + 5 * i, model.config().vocab_size));
      alone.push_back(ChunkedLogits(*runner, prompts.back(), 100));
    }
    // Half of each first, then the rest of some beside one token of others.
    Steps steps(*runner, 12);
    for (int32_t i = 0; i < 6; ++i) {
      const Tokens& prompt = prompts[static_cast<size_t>(i)];
      steps.Add(i, Tokens(prompt.begin(), prompt.end() - 1 - i % 3), 0, false);
    }
    steps.Run();
    int32_t row = 0;
    for (int32_t i = 0; i < 6; ++i) {
      const Tokens& prompt = prompts[static_cast<size_t>(i)];
      const auto start = static_cast<int32_t>(prompt.size()) - 1 - i % 3;
      steps.Add(i, Tokens(prompt.begin() + start, prompt.end()), start, true);
    }
    steps.Run();
    for (int32_t i = 0; i < 6; ++i) {
      row += 1 + i % 3;
      const auto got = runner->kept_logits(row - 1);
      const std::vector<float>& want = alone[static_cast<size_t>(i)];
      EXPECT_EQ(std::memcmp(got.data(), want.data() + want.size() - vocab, vocab * 4), 0)
          << "sequence " << i << " at " << ranks << " ranks";
    }
  }
}

TEST(Llama, RanksAgreeInBfloat16UpToRounding) {
  const RandomModel model(SmallConfig());
  const Tokens prompt = RandomTokens(8, 30, model.config().vocab_size);
  const std::vector<float> one = ChunkedLogits(*MakeRunner(model, 1), prompt, 64);
  for (const int ranks : {2, 4}) {
    const std::vector<float> many = ChunkedLogits(*MakeRunner(model, ranks), prompt, 64);
    double squares = 0;
    double error = 0;
    for (size_t i = 0; i < one.size(); ++i) {
      squares += static_cast<double>(one[i]) * one[i];
      error += std::pow(static_cast<double>(one[i]) - many[i], 2);
    }
    EXPECT_LT(error / squares, 1e-3) << ranks << " ranks";
  }
}

}  // namespace
}  // namespace penstock::engine
