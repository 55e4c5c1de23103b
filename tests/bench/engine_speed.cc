// How fast the engine's arithmetic is on this machine: tokens per second of the
// embedded model and of a random Qwen2 with the shape of 0.5 B parameters,
// beside the memory bandwidth that bounds decoding (every step reads every
// weight once).
//
//   engine_speed [--ranks N]... [--float32] [--seconds S]
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "backend-engine/exec/cpu_runner.h"
#include "backend-engine/load/checkpoint.h"
#include "tests/backend-engine/model/random_model.h"

namespace penstock::engine {
namespace {

using Clock = std::chrono::steady_clock;

double Seconds(Clock::time_point since) {
  return std::chrono::duration<double>(Clock::now() - since).count();
}

struct Arguments {
  std::vector<int> ranks;
  std::optional<DType> dtype;
  double seconds = 2;
};

// Bytes a second that `threads` threads read together, best of several passes.
double ReadBandwidth(int threads) {
  constexpr size_t kWords = size_t{32} << 20;  // 256 MiB a thread: beyond most caches.
  std::vector<std::vector<uint64_t>> memory(static_cast<size_t>(threads));
  for (auto& part : memory) part.assign(kWords, 1);
  std::vector<uint64_t> sums(static_cast<size_t>(threads));
  double best = 0;
  for (int pass = 0; pass < 4; ++pass) {
    const auto start = Clock::now();
    std::vector<std::thread> readers;
    for (size_t i = 0; i < memory.size(); ++i) {
      readers.emplace_back([&part = memory[i], &sum = sums[i]] {
        uint64_t lanes[8] = {};
        for (size_t word = 0; word < kWords; word += 8) {
          for (size_t lane = 0; lane < 8; ++lane) lanes[lane] += part[word + lane];
        }
        for (const uint64_t lane : lanes) sum += lane;
      });
    }
    for (std::thread& reader : readers) reader.join();
    best = std::max(best, static_cast<double>(kWords * 8 * memory.size()) / Seconds(start));
  }
  if (sums[0] == 0) std::puts("");  // The sums are used.
  return best;
}

// Runs `sequences` sequences of `tokens` tokens a step, from position `start`
// on, until the time is over. Returns steps per second.
double StepsPerSecond(CpuRunner& runner, int32_t sequences, int32_t tokens, int32_t start,
                      double seconds) {
  StepPlan plan;
  StepResult result;
  const SamplingParams greedy{.temperature = 0};
  const int32_t blocks = (start + tokens + 15) / 16;
  for (int32_t i = 0; i < sequences; ++i) {
    plan.sequences.push_back({.id = static_cast<SequenceId>(i), .slot = i,
                              .first_token = i * tokens, .token_count = tokens, .start = start,
                              .first_block = i * blocks, .block_count = blocks, .sample = true,
                              .sampling = &greedy});
    for (int32_t t = 0; t < tokens; ++t) plan.tokens.push_back(10 + (i * 31 + t * 7) % 1000);
    for (int32_t b = 0; b < blocks; ++b) plan.block_table.push_back(i * blocks + b);
  }
  if (runner.Run(plan, result) != RunStatus::kOk) {
    std::fprintf(stderr, "engine_speed: %s\n", runner.error().c_str());
    std::exit(1);
  }
  int steps = 0;
  const auto begin = Clock::now();
  while (Seconds(begin) < seconds) {
    runner.Run(plan, result);
    ++steps;
  }
  return steps / Seconds(begin);
}

void Measure(const char* name, const ModelConfig& config, const TensorSource& source,
             const Arguments& arguments, const std::vector<double>& bandwidth) {
  for (const int ranks : arguments.ranks) {
    const CpuRunnerOptions options{.ranks = ranks, .dtype = arguments.dtype, .block_count = 1024,
                                   .max_step_tokens = 512, .max_sequences = 16};
    std::string error;
    const auto start = Clock::now();
    const auto runner = CpuRunner::Create(config, source, options, error);
    if (runner == nullptr) {
      std::fprintf(stderr, "engine_speed: %s\n", error.c_str());
      std::exit(1);
    }
    int64_t bytes = 0;
    for (int rank = 0; rank < ranks; ++rank) bytes += runner->weight_bytes(rank);
    std::printf("%s, %d rank(s), weights %.1f MB loaded in %.2f s\n", name, ranks, bytes / 1e6,
                Seconds(start));
    const double one = StepsPerSecond(*runner, 1, 1, 128, arguments.seconds);
    const double sixteen = StepsPerSecond(*runner, 16, 1, 128, arguments.seconds);
    const double prompt = StepsPerSecond(*runner, 1, 256, 0, arguments.seconds);
    const size_t threads = std::min(static_cast<size_t>(ranks), bandwidth.size()) - 1;
    std::printf("  decode, 1 sequence     %9.1f tokens/s   (%.1f GB/s of weights, %.0f%% of the "
                "memory's %.1f)\n",
                one, one * static_cast<double>(bytes) / 1e9,
                100 * one * static_cast<double>(bytes) / bandwidth[threads],
                bandwidth[threads] / 1e9);
    std::printf("  decode, 16 sequences   %9.1f tokens/s\n", sixteen * 16);
    std::printf("  prefill, 256 tokens    %9.1f tokens/s\n", prompt * 256);
  }
}

ModelConfig HalfBillion() {
  ModelConfig config;
  config.vocab_size = 151936;
  config.hidden_size = 896;
  config.intermediate_size = 4864;
  config.layer_count = 24;
  config.head_count = 14;
  config.kv_head_count = 2;
  config.head_dim = 64;
  config.max_positions = 2048;
  config.rope.theta = 1e6;
  config.qkv_bias = true;
  config.tied_embeddings = true;
  config.name = "random 0.5B";
  return config;
}

Arguments Parse(int argc, char** argv) {
  Arguments arguments;
  for (int i = 1; i < argc; ++i) {
    const bool more = i + 1 < argc;
    if (std::strcmp(argv[i], "--float32") == 0) {
      arguments.dtype = DType::kF32;
    } else if (std::strcmp(argv[i], "--ranks") == 0 && more) {
      arguments.ranks.push_back(std::atoi(argv[++i]));
    } else if (std::strcmp(argv[i], "--seconds") == 0 && more) {
      arguments.seconds = std::atof(argv[++i]);
    } else {
      std::fprintf(stderr, "usage: engine_speed [--ranks N]... [--float32] [--seconds S]\n");
      std::exit(2);
    }
  }
  if (arguments.ranks.empty()) arguments.ranks = {1, 2};
  return arguments;
}

int Main(int argc, char** argv) {
  const Arguments arguments = Parse(argc, argv);
  std::vector<double> bandwidth;
  for (int threads = 1; threads <= *std::max_element(arguments.ranks.begin(),
                                                     arguments.ranks.end()); ++threads) {
    bandwidth.push_back(ReadBandwidth(threads));
  }
  std::printf("kernels %s, memory read by 1 thread %.1f GB/s, by %zu %.1f GB/s\n",
              BestKernels().name, bandwidth.front() / 1e9, bandwidth.size(),
              bandwidth.back() / 1e9);
  const auto lexicon = Checkpoint::Open(PENSTOCK_SOURCE_DIR "/backend-engine/models/lexicon-5m");
  if (!lexicon.ok()) {
    std::fprintf(stderr, "engine_speed: %s\n", lexicon.status().ToString().c_str());
    return 1;
  }
  Measure("lexicon-5m", (*lexicon)->config(), (*lexicon)->source(), arguments, bandwidth);
  const RandomModel half_billion(HalfBillion(), DType::kBf16, 0.03f);
  Measure("random 0.5B", half_billion.config(), half_billion.source(), arguments, bandwidth);
  return 0;
}

}  // namespace
}  // namespace penstock::engine

int main(int argc, char** argv) { return penstock::engine::Main(argc, argv); }
