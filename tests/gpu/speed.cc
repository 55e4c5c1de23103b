#include "tests/gpu/speed.h"

#include <chrono>
#include <cmath>
#include <functional>
#include <memory>
#include <random>

#include "backend-engine/exec/decode_plan.h"
#include "backend-engine/exec/gpu_runner.h"
#include "backend-engine/kernels/cuda/cuda_kernels.h"
#include "backend-engine/kernels/cuda/gemm.h"
#include "tests/backend-engine/model/plain_steps.h"
#include "tests/gpu/gpu_array.h"

namespace penstock::engine {
namespace {

using std::chrono::duration;
using std::chrono::steady_clock;

// Runs work on a stream of its own and times it there.
class Clock {
 public:
  Clock() {
    Must(cuda::MakeStream(stream_), "a stream");
    for (cuda::Event& event : events_) Must(cuda::MakeEvent(event), "an event");
  }
  ~Clock() {
    for (const cuda::Event event : events_) cuda::DestroyEvent(event);
    cuda::DestroyStream(stream_);
  }

  // Microseconds of one run, in a CUDA graph of many, so that no launch is waited for.
  double Of(const std::function<cuda::GpuError(cuda::Stream)>& work) {
    constexpr int kRuns = 20;
    Must(work(stream_), "timed work");
    Must(cuda::Synchronize(stream_), "timed work");
    Must(cuda::BeginCapture(stream_), "a graph");
    for (int run = 0; run < kRuns; ++run) Must(work(stream_), "timed work");
    cuda::Graph graph = nullptr;
    Must(cuda::EndCapture(stream_, graph), "a graph");
    float best = 0;
    for (int turn = 0; turn < 5; ++turn) {
      Must(cuda::Record(events_[0], stream_), "an event");
      Must(cuda::LaunchGraph(graph, stream_), "a graph");
      Must(cuda::Record(events_[1], stream_), "an event");
      Must(cuda::Synchronize(stream_), "timed work");
      float ms = 0;
      Must(cuda::Milliseconds(events_[0], events_[1], ms), "an event");
      best = turn == 0 ? ms : std::min(best, ms);
    }
    cuda::DestroyGraph(graph);
    return best * 1000.0 / kRuns;
  }

  cuda::Stream stream() const { return stream_; }

 private:
  cuda::Stream stream_ = nullptr;
  cuda::Event events_[2] = {};
};

std::vector<uint16_t> Random(size_t count) {
  std::minstd_rand random(7);
  std::vector<uint16_t> numbers(count);
  for (uint16_t& number : numbers) {
    number = Bf16FromFloat(static_cast<float>(random()) / 0x1p30f - 1.0f);
  }
  return numbers;
}

// Several copies of the same numbers, more than a cache holds: in a step each layer has
// weights and keys of its own, so what is timed must not find them where it left them.
class Copies {
 public:
  explicit Copies(const std::vector<uint16_t>& numbers)
      : count_(numbers.size()), copies_(1 + kBytes / (2 * numbers.size())),
        memory_(count_ * copies_) {
    for (size_t copy = 0; copy < copies_; ++copy) {
      Must(cuda::CopyToGpu(At(copy), numbers.data(), static_cast<int64_t>(2 * count_), nullptr),
           "copies");
    }
    Must(cuda::Synchronize(nullptr), "copies");
  }
  size_t size() const { return copies_; }
  uint16_t* At(size_t copy) { return memory_.data() + copy * count_; }
  uint16_t* Next() { return At(++last_ % copies_); }

 private:
  static constexpr size_t kBytes = size_t{256} << 20;
  const size_t count_, copies_;
  size_t last_ = 0;
  GpuArray<uint16_t> memory_;
};

void Ceilings(Clock& clock, cuda::Gemm& gemm, Report& report) {
  const int64_t bytes = int64_t{1} << 30;
  GpuArray<std::byte> from(bytes), to(bytes);
  const double copy = clock.Of(
      [&](cuda::Stream stream) { return cuda::CopyOnGpu(to.data(), from.data(), bytes, stream); });
  report.Time({"ceiling: copy of 1 GiB, read and written", copy, 2.0 * bytes / copy / 1e6, "TB/s"});
  const int32_t size = 8192;
  const auto numbers = Random(static_cast<size_t>(size) * size);
  GpuArray<uint16_t> x(numbers), weight(numbers), y(numbers.size());
  const cuda::GemvCall call{x.data(), size, weight.data(), nullptr, size, size, y.data(), nullptr};
  std::string error;
  if (!gemm.Tune({&call, 1}, cuda::Gemm::kGuessesMax, clock.stream(), error)) {
    Must(cuda::kGpuInvalid, error.c_str());
  }
  const double product = clock.Of([&](cuda::Stream stream) { return gemm.Run(call, stream); });
  report.Time({"ceiling: product of 8192 x 8192 x 8192", product,
               2.0 * size * size * size / product / 1e6, "TFLOP/s"});
}

void Products(Clock& clock, cuda::Gemm& gemm, Report& report) {
  struct Shape {
    int32_t rows, cols;
  };
  for (const Shape shape : {Shape{6144, 4096}, {4096, 4096}, {28672, 4096}, {4096, 14336},
                            {128256, 4096}, {4608, 3584}, {37888, 3584}, {3584, 18944}}) {
    const auto count = static_cast<size_t>(shape.rows) * static_cast<size_t>(shape.cols);
    Copies weight(Random(count));
    for (const int32_t tokens : {1, 2, 4, 16, 64, 256}) {
      const auto rows = static_cast<size_t>(cuda::GemmTokens(tokens));
      GpuArray<uint16_t> x(Random(rows * static_cast<size_t>(shape.cols)));
      GpuArray<uint16_t> y(rows * static_cast<size_t>(shape.rows));
      const auto call = [&](const uint16_t* of) -> cuda::GemvCall {
        return {x.data(), tokens, of, nullptr, shape.rows, shape.cols, y.data(), nullptr};
      };
      const std::string what = "[" + std::to_string(shape.rows) + ", " +
                               std::to_string(shape.cols) + "] x " + std::to_string(tokens);
      const double bytes = 2.0 * static_cast<double>(count);
      if (tokens <= cuda::kGemvTokensMax) {
        const double us = clock.Of(
            [&](cuda::Stream stream) { return cuda::Gemv(call(weight.Next()), stream); });
        report.Time({"gemv " + what, us, bytes / us / 1e6, "TB/s"});
      }
      std::string error;
      std::vector<cuda::GemvCall> calls;
      for (size_t copy = 0; copy < weight.size(); ++copy) calls.push_back(call(weight.At(copy)));
      if (!gemm.Tune(calls, cuda::Gemm::kGuessesMax, clock.stream(), error)) continue;
      const double us =
          clock.Of([&](cuda::Stream stream) { return gemm.Run(call(weight.Next()), stream); });
      report.Time({"cublaslt " + what, us, bytes / us / 1e6, "TB/s"});
    }
  }
}

// Heads of Llama-3.1-8B; every sequence has blocks of its own, in order.
void Attention(Clock& clock, int sm_count, Report& report) {
  constexpr int32_t kHeads = 32, kKvHeads = 8, kDim = 128, kBlock = 16;
  struct Shape {
    int32_t sequences, context, tokens;
  };
  for (const Shape shape : {Shape{1, 1024, 1}, {1, 8192, 1}, {64, 8192, 1}, {256, 1024, 1},
                            {1, 0, 1024}, {1, 0, 8192}, {8, 0, 4096}}) {
    const int32_t length = shape.context + (shape.context > 0 ? 0 : shape.tokens);
    const int32_t blocks = (length + kBlock - 1) / kBlock;
    const int32_t tokens = shape.sequences * shape.tokens;
    const auto cache = static_cast<size_t>(shape.sequences) * blocks * kBlock * kKvHeads * kDim;
    const auto numbers = Random(cache);
    Copies keys(numbers), values(numbers);
    GpuArray<uint16_t> qkv(Random(static_cast<size_t>(tokens) * (kHeads + 2 * kKvHeads) * kDim));
    GpuArray<uint16_t> out(static_cast<size_t>(tokens) * kHeads * kDim);
    std::vector<int32_t> table, decodes;
    std::vector<cuda::GpuSequence> sequences;
    std::vector<cuda::PrefillTile> tiles;
    for (int32_t s = 0; s < shape.sequences; ++s) {
      sequences.push_back({s * shape.tokens, shape.tokens, length - shape.tokens, s * blocks});
      for (int32_t block = 0; block < blocks; ++block) table.push_back(s * blocks + block);
      if (shape.tokens == 1) decodes.push_back(s);
      const int32_t rows = shape.tokens == 1 ? 0 : shape.tokens * kHeads / kKvHeads;
      for (int32_t row = rows - cuda::kPrefillRows; row >= 0; row -= cuda::kPrefillRows) {
        tiles.push_back({s, row});
      }
    }
    const int32_t splits = DecodeSplits(shape.sequences, kKvHeads, sm_count, length);
    GpuArray<float> partial(static_cast<size_t>(shape.sequences) * kHeads * splits * kDim);
    GpuArray<float> stats(static_cast<size_t>(shape.sequences) * kHeads * splits * 2);
    GpuArray<cuda::GpuSequence> gpu_sequences(sequences);
    GpuArray<int32_t> gpu_table(table), gpu_decodes(decodes);
    GpuArray<cuda::PrefillTile> gpu_tiles(tiles);
    cuda::AttentionCall call{
        qkv.data(), kHeads, kKvHeads, kDim, kBlock, 0.088f, keys.At(0), values.At(0),
        gpu_sequences.data(), gpu_table.data(), out.data(), gpu_decodes.data(),
        static_cast<int32_t>(decodes.size()), splits, partial.data(), stats.data(),
        gpu_tiles.data(), static_cast<int32_t>(tiles.size())};
    const std::string what = std::to_string(shape.sequences) + " x " + std::to_string(length);
    if (shape.tokens == 1) {
      const double us = clock.Of([&](cuda::Stream stream) {
        call.keys = keys.Next();
        call.values = values.Next();
        return cuda::AttentionDecode(call, stream);
      });
      const double bytes = 4.0 * static_cast<double>(shape.sequences) * length * kKvHeads * kDim;
      report.Time({"decode attention " + what + ", " + std::to_string(splits) + " splits", us,
                   bytes / us / 1e6, "TB/s"});
    } else {
      const double us =
          clock.Of([&](cuda::Stream stream) { return cuda::AttentionPrefill(call, stream); });
      const double flops = 2.0 * shape.sequences * static_cast<double>(length) * length * kHeads * kDim;
      report.Time({"prefill attention " + what, us, flops / us / 1e6, "TFLOP/s"});
    }
  }
}

struct Shape {
  const char* name;
  ModelConfig config;
};

std::vector<Shape> Models() {
  ModelConfig llama{.architecture = Architecture::kLlama, .vocab_size = 128256,
                    .hidden_size = 4096, .intermediate_size = 14336, .layer_count = 32,
                    .head_count = 32, .kv_head_count = 8, .head_dim = 128,
                    .max_positions = 9216, .rms_eps = 1e-5};
  ModelConfig qwen{.architecture = Architecture::kQwen2, .vocab_size = 152064,
                   .hidden_size = 3584, .intermediate_size = 18944, .layer_count = 28,
                   .head_count = 28, .kv_head_count = 4, .head_dim = 128, .max_positions = 9216,
                   .rms_eps = 1e-6, .qkv_bias = true};
  return {{"Llama-3.1-8B", llama}, {"Qwen2.5-7B", qwen}};
}

double Seconds(const std::function<void()>& work) {
  const auto before = steady_clock::now();
  work();
  return duration<double>(steady_clock::now() - before).count();
}

// Steps of the whole engine with random weights of the right shapes. All tensors
// are the same memory: speed does not depend on it, and 15 GB are not made up.
void Engine(const Shape& shape, Report& report) {
  const ModelConfig& config = shape.config;
  const auto numbers = Random(static_cast<size_t>(config.vocab_size) * config.hidden_size);
  const auto dims = [&config](std::string_view name) -> std::vector<int64_t> {
    const auto has = [name](const char* part) { return name.find(part) != std::string_view::npos; };
    const int64_t q = config.head_count * config.head_dim;
    const int64_t kv = config.kv_head_count * config.head_dim;
    const bool bias = name.ends_with("bias");
    if (has("norm")) return {config.hidden_size};
    if (has("embed") || has("lm_head")) return {config.vocab_size, config.hidden_size};
    const int64_t rows = has("q_proj")                     ? q
                         : has("k_proj") || has("v_proj")  ? kv
                         : has("gate") || has("up_proj")   ? config.intermediate_size
                                                           : config.hidden_size;
    const int64_t cols = has("o_proj") ? q : has("down") ? config.intermediate_size
                                                         : config.hidden_size;
    return bias ? std::vector<int64_t>{rows} : std::vector<int64_t>{rows, cols};
  };
  const TensorSource source = [&](std::string_view name) -> std::optional<TensorView> {
    TensorView view{.dtype = DType::kBf16, .shape = dims(name), .bytes = {}};
    size_t count = 1;
    for (const int64_t dim : view.shape) count *= static_cast<size_t>(dim);
    view.bytes = std::as_bytes(std::span(numbers)).first(count * 2);
    return view;
  };
  std::string error;
  std::unique_ptr<GpuRunner> runner;
  const double load = Seconds([&] {
    runner = GpuRunner::Create(config, source, {.max_step_tokens = 8192, .max_sequences = 256,
                                                .max_length = 8448}, error);
  });
  const std::string name = shape.name;
  if (runner == nullptr) {
    report.Fact(name + " not measured", error);
    return;
  }
  report.Time({name + ": loaded, graphs recorded", load * 1e6, load, "s"});
  report.Fact(name + " memory", runner->notes());
  PlainSteps steps(*runner, 528);
  const auto time_decodes = [&](int32_t batch, int32_t context) {
    constexpr int32_t kSteps = 30;
    const auto step = [&](int32_t turn) {
      for (int32_t i = 0; i < batch; ++i) steps.Add(i, {17}, context + turn, true);
      steps.Run();
    };
    for (int32_t turn = 0; turn < 3; ++turn) step(turn);
    const double seconds = Seconds([&] {
      for (int32_t turn = 0; turn < kSteps; ++turn) step(3 + turn);
    });
    report.Time({name + ": decode, batch " + std::to_string(batch) + ", context " +
                     std::to_string(context), seconds / kSteps * 1e6, batch * kSteps / seconds,
                 "tok/s"});
  };
  for (const int32_t batch : {1, 4, 16, 64, 256}) {
    if (batch * 528 <= runner->info().block_count) time_decodes(batch, 1024);
  }
  const std::vector<int32_t> prompt(8192, 17);
  steps.Add(0, prompt, 0, true);
  steps.Run();
  const double prefill = Seconds([&] {
    steps.Add(0, prompt, 0, true);
    steps.Run();
  });
  report.Time({name + ": prompt of 8192 tokens", prefill * 1e6, 8192 / prefill, "tok/s"});
  if (steps.failed()) report.Add({"speed", name, 1, 0});
}

}  // namespace

void MeasureSpeed(Report& report) {
  cuda::GpuDescription gpu;
  Must(cuda::DescribeGpu(0, gpu), "the GPU's description");
  {
    Clock clock;
    cuda::Gemm gemm;
    std::string error;
    if (!gemm.Start(error)) Must(cuda::kGpuInvalid, error.c_str());
    Ceilings(clock, gemm, report);
    Products(clock, gemm, report);
    Attention(clock, gpu.sm_count, report);
  }
  for (const Shape& shape : Models()) Engine(shape, report);
}

}  // namespace penstock::engine
