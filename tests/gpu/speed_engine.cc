#include "tests/gpu/speed_engine.h"

#include <chrono>
#include <memory>
#include <numeric>

#include "backend-engine/exec/gpu_runner.h"
#include "tests/backend-engine/model/plain_steps.h"
#include "tests/gpu/random_checkpoint.h"

namespace penstock::engine {
namespace {

using std::chrono::duration;
using std::chrono::steady_clock;

constexpr int32_t kBlock = 16;
constexpr int32_t kWarm = 5;  // Steps before those that are measured.

int32_t BlocksFor(int32_t positions) { return (positions + kBlock - 1) / kBlock; }

double Since(steady_clock::time_point begin) {
  return duration<double>(steady_clock::now() - begin).count();
}

// Decode steps one after another, of which two are under way.
class Decoding {
 public:
  Decoding(GpuRunner& runner, int32_t batch, int32_t context, int32_t blocks_each)
      : runner_(runner), batch_(batch), context_(context), blocks_each_(blocks_each) {}

  // Microseconds of each step from when the one before it had ended. Empty: one failed.
  std::vector<double> Run(int32_t count) {
    std::vector<double> turns;
    if (!Start()) return {};
    auto last = steady_clock::now();
    for (int32_t turn = 0; turn < count; ++turn) {
      if (!Start() || runner_.Finish(result_) != RunStatus::kOk) return {};
      turns.push_back(Since(last) * 1e6);
      last = steady_clock::now();
    }
    return runner_.Finish(result_) == RunStatus::kOk ? turns : std::vector<double>();
  }

 private:
  bool Start() {
    plan_.tokens.assign(static_cast<size_t>(batch_), 0);
    plan_.block_table.clear();
    plan_.sequences.clear();
    const int32_t start = context_ + static_cast<int32_t>(plan_.number);
    const int32_t blocks = BlocksFor(start + 1);
    for (int32_t i = 0; i < batch_; ++i) {
      plan_.sequences.push_back({.id = static_cast<SequenceId>(i), .slot = i, .first_token = i,
                                 .token_count = 1, .start = start, .first_block = i * blocks,
                                 .block_count = blocks, .sample = true,
                                 .awaited = plan_.number > 0 ? i : -1});
      for (int32_t block = 0; block < blocks; ++block) {
        plan_.block_table.push_back(i * blocks_each_ + block);
      }
    }
    ++plan_.number;
    return runner_.Start(plan_) == RunStatus::kOk;
  }

  GpuRunner& runner_;
  const int32_t batch_, context_, blocks_each_;
  StepPlan plan_;
  StepResult result_;
};

class EngineSpeed {
 public:
  EngineSpeed(const SpeedSizes& sizes, const SpeedSizes::Model& model, Report& report)
      : sizes_(sizes), model_(model), report_(report) {}

  void Measure() {
    if (!Load()) return;
    report_.Fact(model_.name + " memory", runner_->notes());
    for (const SpeedSizes::Decode& decode : model_.decodes) Decode(decode);
    Prompt();
    if (failed_) report_.Add({"speed", model_.name + ": " + runner_->error(), 1, 0});
  }

 private:
  static constexpr int32_t kShortPrompt = 16;

  bool Load() {
    const RandomCheckpoint checkpoint(model_.config);
    const auto begin = steady_clock::now();
    int32_t batch = 1;
    for (const SpeedSizes::Decode& decode : model_.decodes) batch = std::max(batch, decode.batch);
    std::string error;
    runner_ = GpuRunner::Create(model_.config, checkpoint.source(),
                                {.block_tokens = kBlock, .max_step_tokens = sizes_.prompt,
                                 .max_sequences = batch,
                                 .max_length = std::max(sizes_.prompt, Longest()) + kBlock},
                                error);
    if (runner_ == nullptr) {
      report_.Fact(model_.name + " not measured", error);
      return false;
    }
    const double ready = Since(begin);
    PlainSteps steps(*runner_, BlocksFor(kShortPrompt));
    steps.Add(0, std::vector<int32_t>(kShortPrompt, 17), 0, true);
    steps.Run();
    const double first = Since(begin);
    failed_ = steps.failed();
    if (!checkpoint.whole()) {
      report_.Fact(model_.name + " checkpoint", "no memory for all of it: tensors share some");
    }
    const std::string size = std::to_string(checkpoint.bytes() / 1'000'000'000) + " GB";
    report_.Time({.what = model_.name + ": weights loaded, graphs recorded",
                  .microseconds = ready * 1e6, .rate = ready, .unit = "s"});
    report_.Time({.what = model_.name + ": " + size + " in memory to the first token",
                  .microseconds = first * 1e6, .rate = first, .unit = "s",
                  .at_most = checkpoint.whole() ? model_.first_token_at_most : 0});
    return true;
  }

  int32_t Longest() const { return sizes_.decode_context + kWarm + sizes_.decode_steps + 2; }

  void Decode(const SpeedSizes::Decode& decode) {
    const std::string what = model_.name + ": decode, batch " + std::to_string(decode.batch) +
                             ", context " + std::to_string(sizes_.decode_context);
    const int32_t each = BlocksFor(Longest());
    if (int64_t{decode.batch} * each > runner_->info().block_count) {
      report_.Fact(what + " not measured", "the KV pool has " +
                   std::to_string(runner_->info().block_count) + " blocks, it takes " +
                   std::to_string(int64_t{decode.batch} * each));
      return;
    }
    (void)Decoding(*runner_, decode.batch, sizes_.decode_context, each).Run(kWarm);
    const double busy_before = runner_->busy_seconds();
    const auto begin = steady_clock::now();
    const auto turns =
        Decoding(*runner_, decode.batch, sizes_.decode_context, each).Run(sizes_.decode_steps);
    const double wall = Since(begin);
    const double busy = runner_->busy_seconds() - busy_before;
    failed_ = failed_ || turns.empty();
    if (turns.empty()) return;
    // The first one has to fill what is under way.
    const double us = std::accumulate(turns.begin() + 1, turns.end(), 0.0) /
                      static_cast<double>(turns.size() - 1);
    const ModelConfig& config = model_.config;
    const double kv = 4.0 * static_cast<double>(config.layer_count * config.kv_head_count *
                                                config.head_dim) *
                      decode.batch * sizes_.decode_context;
    report_.Time({.what = what, .microseconds = us, .rate = decode.batch * 1e6 / us,
                  .unit = "tok/s",
                  .bytes = 2.0 * static_cast<double>(WeightsOfAStep(config)) + kv,
                  .at_least = decode.at_least, .turns = turns});
    const double outside = 100 * std::max(0.0, 1 - busy / wall);
    report_.Time({.what = what + ": of it, the GPU had no work",
                  .microseconds = (wall - busy) * 1e6 / static_cast<double>(turns.size() + 1),
                  .rate = outside, .unit = "%", .at_most = decode.batch == 1 ? 5.0 : 0});
  }

  void Prompt() {
    PlainSteps steps(*runner_, BlocksFor(sizes_.prompt));
    const std::vector<int32_t> prompt(static_cast<size_t>(sizes_.prompt), 17);
    std::vector<double> turns;
    for (int turn = 0; turn < 4; ++turn) {
      steps.Add(0, prompt, 0, true);
      const auto begin = steady_clock::now();
      steps.Run();
      if (turn > 0) turns.push_back(Since(begin) * 1e6);
    }
    failed_ = failed_ || steps.failed();
    const double us = *std::min_element(turns.begin(), turns.end());
    const ModelConfig& config = model_.config;
    const auto head = static_cast<double>(config.vocab_size * config.hidden_size);  // Of one row.
    const double length = sizes_.prompt;
    const double flops = 2.0 * length * (static_cast<double>(WeightsOfAStep(config)) - head) +
                         2.0 * head + 2.0 * length * length *
                         static_cast<double>(config.layer_count * config.head_count * config.head_dim);
    report_.Time({.what = model_.name + ": prompt of " + std::to_string(sizes_.prompt) + " tokens",
                  .microseconds = us, .rate = us / 1e3, .unit = "ms", .flops = flops,
                  .at_most = model_.prompt_at_most, .turns = turns});
  }

  const SpeedSizes& sizes_;
  const SpeedSizes::Model& model_;
  Report& report_;
  std::unique_ptr<GpuRunner> runner_;
  bool failed_ = false;
};

void MeasureSumsOf(const SpeedSizes& sizes, const RandomCheckpoint& checkpoint,
                   const std::vector<int>& gpus, const std::string& where, Report& report) {
  std::string error;
  const auto runner = GpuRunner::Create(
      sizes.sums_over, checkpoint.source(),
      {.gpus = gpus, .block_count = 64, .max_step_tokens = std::min(sizes.prompt, 1024),
       .max_sequences = 16, .max_length = 256}, error);
  if (runner == nullptr) {
    report.Fact("sums over " + where + " not measured", error);
    return;
  }
  for (const AllReduceTable::Entry& entry : runner->sums().entries()) {
    report.Time({.what = "sum of " + std::to_string(entry.bytes) + " bytes over " + where + ", " +
                         NameOf(entry.way),
                 .microseconds = entry.microseconds,
                 .rate = static_cast<double>(entry.bytes) / entry.microseconds / 1e3,
                 .unit = "GB/s"});
  }
}

}  // namespace

void MeasureEngine(const SpeedSizes& sizes, const SpeedSizes::Model& model, Report& report) {
  EngineSpeed(sizes, model, report).Measure();
}

void MeasureSums(const SpeedSizes& sizes, int gpus, Report& report) {
  const RandomCheckpoint checkpoint(sizes.sums_over);
  for (const int ranks : sizes.sums_ranks) {
    MeasureSumsOf(sizes, checkpoint, std::vector<int>(static_cast<size_t>(ranks), 0),
                  std::to_string(ranks) + " ranks on one GPU", report);
  }
  for (int count = 2; count <= gpus && count <= 8; count *= 2) {
    std::vector<int> all(static_cast<size_t>(count));
    std::iota(all.begin(), all.end(), 0);
    MeasureSumsOf(sizes, checkpoint, all, std::to_string(count) + " GPUs", report);
  }
}

}  // namespace penstock::engine
