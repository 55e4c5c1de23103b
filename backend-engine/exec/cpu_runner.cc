#include "backend-engine/exec/cpu_runner.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <limits>
#include <mutex>
#include <new>
#include <thread>
#include <vector>

#include "backend-engine/model/llama.h"
#include "backend-engine/model/rope.h"
#include "backend-engine/model/sampler.h"
#include "backend-engine/model/shard.h"
#include "backend-engine/model/step_input.h"
#include "backend-engine/model/weights.h"
#include "backend-engine/parallel/local_comm.h"
#include "backend-engine/parallel/wait.h"

namespace penstock::engine {
namespace {

// What a rank owns. Made and used on the rank's own thread.
struct Rank {
  Shard shard;
  Weights weights;
  std::unique_ptr<std::byte, void (*)(void*)> kv_storage{nullptr, nullptr};
  std::vector<KvLayer> kv;
  std::unique_ptr<Comm> comm;
  std::unique_ptr<Llama> model;
  int64_t loaded = 0;        // Of LoadProgress; under the runner's mutex.
  int64_t loaded_total = 0;
};

DType KvDType(const CpuRunnerOptions& options) {
  return options.dtype == DType::kF32 ? DType::kF32 : DType::kBf16;
}

// Bytes of one block's keys (or values) of one layer on one rank.
int64_t KvBlockBytes(const ModelConfig& config, const Shard& shard,
                     const CpuRunnerOptions& options) {
  return shard.kv_heads.count * options.block_tokens * config.head_dim *
         static_cast<int64_t>(SizeOf(KvDType(options)));
}

std::string NoMemory(const CpuRunnerOptions& options) {
  return "no memory for a step of " + std::to_string(options.max_step_tokens) + " tokens and " +
         std::to_string(options.max_sequences) +
         " sequences; lower --step-tokens, --max-running or --max-length";
}

bool CheckOptions(const CpuRunnerOptions& options, std::string& error) {
  const struct {
    const char* name;
    int64_t value;
  } counts[] = {{"ranks", options.ranks},
                {"block_tokens", options.block_tokens},
                {"max_step_tokens", options.max_step_tokens},
                {"max_sequences", options.max_sequences}};
  for (const auto& count : counts) {
    if (count.value >= 1) continue;
    error = std::string(count.name) + " is " + std::to_string(count.value) + ", at least 1 needed";
    return false;
  }
  return true;
}

// As many blocks as the budget holds, but no more than could ever be in use.
bool ChooseBlockCount(const ModelConfig& config, const Shard& shard,
                      const CpuRunnerOptions& options, int32_t& count, std::string& error) {
  if (options.block_count > 0) {
    count = options.block_count;
    return true;
  }
  const int64_t block_bytes =
      KvBlockBytes(config, shard, options) * 2 * config.layer_count * shard.size;
  const int64_t each = (config.PositionsFor(options.max_length) + options.block_tokens - 1) /
                       options.block_tokens;
  const int64_t useful = std::min<int64_t>(each * options.max_sequences,
                                           std::numeric_limits<int32_t>::max());
  count = static_cast<int32_t>(std::min(options.kv_bytes / block_bytes, useful));
  if (count > 0) return true;
  error = "one KV block of " + std::to_string(options.block_tokens) + " tokens needs " +
          std::to_string(block_bytes) + " bytes, the KV memory is " +
          std::to_string(options.kv_bytes) + " bytes; raise --kv-bytes";
  return false;
}

bool AllocateKv(const ModelConfig& config, const CpuRunnerOptions& options, int32_t block_count,
                Rank& rank, std::string& error) {
  const int64_t part = KvBlockBytes(config, rank.shard, options) * block_count;
  const int64_t stride = (part + 63) / 64 * 64;
  const auto bytes = static_cast<size_t>(stride * 2 * config.layer_count);
  auto* storage = static_cast<std::byte*>(std::aligned_alloc(64, bytes));
  if (storage == nullptr) {
    error = "no memory for " + std::to_string(bytes) + " bytes of KV cache (" +
            std::to_string(block_count) + " blocks); lower --kv-bytes or --kv-blocks";
    return false;
  }
  std::memset(storage, 0, bytes);
  rank.kv_storage = {storage, &std::free};
  for (int64_t layer = 0; layer < config.layer_count; ++layer) {
    rank.kv.push_back({.keys = storage + 2 * layer * stride,
                       .values = storage + (2 * layer + 1) * stride,
                       .dtype = KvDType(options),
                       .kv_heads = static_cast<int32_t>(rank.shard.kv_heads.count),
                       .block_tokens = options.block_tokens,
                       .head_dim = static_cast<int32_t>(config.head_dim)});
  }
  return true;
}

}  // namespace

class CpuRunner::Impl {
 public:
  Impl(const ModelConfig& config, const CpuRunnerOptions& options)
      : config_(config),
        options_(options),
        kernels_(options.kernels != nullptr ? *options.kernels : BestKernels()),
        group_(options.ranks),
        ranks_(static_cast<size_t>(options.ranks)),
        sampler_(config.vocab_size, kernels_) {}

  ~Impl() {
    stopping_.store(true, std::memory_order_release);
    group_.Abort();
    WakeRanks();
    for (std::thread& thread : threads_) thread.join();
  }

  bool Start(const TensorSource& source, std::string& error) {
    for (int rank = 0; rank < options_.ranks; ++rank) {
      if (!MakeShard(config_, rank, options_.ranks, RankAt(rank).shard, error)) return false;
    }
    int32_t blocks = 0;
    if (!ChooseBlockCount(config_, ranks_[0].shard, options_, blocks, error)) return false;
    const int64_t positions =
        std::min(config_.PositionsFor(options_.max_length), int64_t{blocks} * options_.block_tokens);
    limits_ = {.tokens = options_.max_step_tokens, .sequences = options_.max_sequences,
               .block_tokens = options_.block_tokens, .block_count = blocks,
               .vocab = config_.vocab_size, .positions = positions};
    info_ = {.device = "cpu", .tensor_parallel = options_.ranks,
             .block_tokens = options_.block_tokens, .block_count = blocks,
             .max_step_tokens = options_.max_step_tokens,
             .max_sequences = options_.max_sequences,
             .vocab_size = static_cast<int32_t>(config_.vocab_size)};
    rope_ = MakeRopeTable(config_, positions);
    ReserveStep();
    for (int rank = 1; rank < options_.ranks; ++rank) {
      threads_.emplace_back([this, rank, &source] { RankMain(rank, source); });
    }
    // All have loaded, or somebody failed and aborted the group.
    const bool ok = Guard(0, [&] { return Prepare(0, source); }) && RankAt(0).comm->Barrier();
    if (!ok) error = this->error();
    return ok;
  }

  RunStatus Run(const StepPlan& plan, StepResult& result) {
    std::string refusal;
    if (!FillStepInput(plan, limits_, options_.keep_logits, input_, refusal)) {
      Fail(refusal);
      return RunStatus::kFailed;
    }
    WakeRanks();
    const bool ok = Guard(0, [this] { return Step(0); });
    if (!ok) return RunStatus::kFailed;
    if (options_.keep_logits) KeepLogits();
    SampleAll(plan, result);
    return RunStatus::kOk;
  }

  void Abort() { group_.Abort(); }

  std::string error() const {
    const std::lock_guard lock(mutex_);
    return error_.empty() ? "the step was aborted" : error_;
  }

  const RunnerInfo& info() const { return info_; }

  std::span<const float> kept_logits(int32_t index) const {
    const auto vocab = static_cast<size_t>(config_.vocab_size);
    return std::span(kept_).subspan(static_cast<size_t>(index) * vocab, vocab);
  }

  int64_t weight_bytes(int rank) const {
    return ranks_[static_cast<size_t>(rank)].weights.bytes;
  }

 private:
  Rank& RankAt(int rank) { return ranks_[static_cast<size_t>(rank)]; }

  int64_t RowsMax() const {
    return options_.keep_logits ? options_.max_step_tokens
                                : std::min(options_.max_sequences, options_.max_step_tokens);
  }

  void ReserveStep() {
    input_.Reserve(limits_);
    row_.resize(static_cast<size_t>(config_.vocab_size));
    if (options_.ranks > 1) {
      gathered_.resize(static_cast<size_t>(options_.ranks * RowsMax() *
                                           ranks_[0].shard.vocab_padded));
    }
    if (options_.keep_logits) {
      kept_.resize(static_cast<size_t>(RowsMax() * config_.vocab_size));
    }
  }

  // The first reason stays: what follows it is what it caused.
  void Fail(const std::string& reason) {
    {
      const std::lock_guard lock(mutex_);
      if (error_.empty() && !group_.aborted()) error_ = reason;
    }
    group_.Abort();
  }

  // A rank's work, whatever becomes of it: if it does not succeed, the others
  // are released.
  template <typename Work>
  bool Guard(int rank, const Work& work) {
    try {
      if (work()) return true;
      group_.Abort();
    } catch (const std::bad_alloc&) {
      Fail("rank " + std::to_string(rank) + ": " + NoMemory(options_));
    } catch (const std::exception& exception) {
      Fail("rank " + std::to_string(rank) + ": " + exception.what());
    }
    return false;
  }

  bool Prepare(int index, const TensorSource& source) {
    Rank& rank = RankAt(index);
    std::string error;
    const LoadProgress progress = [this, index](int64_t done, int64_t total) {
      ReportProgress(index, done, total);
    };
    if (!LoadWeights(config_, rank.shard, source, options_.dtype, progress, rank.weights, error) ||
        !AllocateKv(config_, options_, limits_.block_count, rank, error)) {
      Fail(error);
      return false;
    }
    rank.comm = group_.MakeComm(index);
    rank.model = std::make_unique<Llama>(config_, rank.shard, rank.weights, rope_, rank.kv,
                                         kernels_, *rank.comm, limits_.tokens, RowsMax());
    return true;
  }

  // In all is what the ranks that have begun will read.
  void ReportProgress(int index, int64_t done, int64_t total) {
    if (!options_.progress) return;
    const std::lock_guard lock(mutex_);
    RankAt(index).loaded = done;
    RankAt(index).loaded_total = total;
    int64_t all_done = 0;
    int64_t all_total = 0;
    for (const Rank& rank : ranks_) {
      all_done += rank.loaded;
      // Ranks have equal shares: one that has not begun will read as much.
      all_total += rank.loaded_total > 0 ? rank.loaded_total : total;
    }
    options_.progress(all_done, all_total);
  }

  // Everything of ranks 1 and up: load, then a step for every wake-up.
  void RankMain(int rank, const TensorSource& source) {
    if (!Guard(rank, [&] { return Prepare(rank, source) && RankAt(rank).comm->Barrier(); })) return;
    for (int seen = 0;;) {
      WaitWhile(step_, seen);
      seen = step_.load(std::memory_order_acquire);
      if (stopping_.load(std::memory_order_acquire)) return;
      if (!Guard(rank, [this, rank] { return Step(rank); })) return;
    }
  }

  void WakeRanks() {
    step_.fetch_add(1, std::memory_order_acq_rel);
    step_.notify_all();
  }

  // The gathering ends with a meeting: after it no rank looks at input_.
  bool Step(int index) {
    Rank& rank = RankAt(index);
    if (!rank.model->Forward(input_)) return false;
    const auto count =
        static_cast<int64_t>(input_.logit_rows.size()) * rank.shard.vocab_padded;
    if (options_.ranks == 1) return true;
    return rank.comm->AllGather(rank.model->logits(), count,
                                index == 0 ? gathered_.data() : nullptr);
  }

  // The whole vocabulary's logits of one row. Valid until the next call.
  const float* Row(int64_t row) {
    const int64_t padded = ranks_[0].shard.vocab_padded;
    if (options_.ranks == 1) return ranks_[0].model->logits() + row * padded;
    const auto rows = static_cast<int64_t>(input_.logit_rows.size());
    for (const Rank& rank : ranks_) {
      std::copy_n(gathered_.data() + (rank.shard.rank * rows + row) * padded,
                  rank.shard.vocab.count, row_.data() + rank.shard.vocab.first);
    }
    return row_.data();
  }

  void KeepLogits() {
    for (size_t row = 0; row < input_.logit_rows.size(); ++row) {
      std::copy_n(Row(static_cast<int64_t>(row)), config_.vocab_size,
                  kept_.data() + input_.logit_rows[row] * config_.vocab_size);
    }
  }

  void SampleAll(const StepPlan& plan, StepResult& result) {
    result.number = plan.number;
    result.sampled.resize(static_cast<size_t>(
        std::count_if(plan.sequences.begin(), plan.sequences.end(),
                      [](const StepSequence& sequence) { return sequence.sample; })));
    size_t next = 0;
    int64_t row = 0;
    for (const StepSequence& sequence : plan.sequences) {
      if (options_.keep_logits) row += sequence.token_count - 1;
      if (sequence.sample) {
        SampledToken& out = result.sampled[next++];
        out.id = sequence.id;
        sampler_.Sample(Row(row), sequence.sampling != nullptr ? *sequence.sampling : greedy_,
                        sequence.history, sequence.prompt_length, out);
      }
      if (sequence.sample || options_.keep_logits) ++row;
    }
  }

  const ModelConfig config_;
  const CpuRunnerOptions options_;
  const Kernels& kernels_;
  const SamplingParams greedy_{.temperature = 0.0f};
  RunnerInfo info_;
  StepLimits limits_;
  RopeTable rope_;
  LocalGroup group_;
  std::vector<Rank> ranks_;
  Sampler sampler_;
  StepInput input_;              // Written by rank 0 between steps.
  std::vector<float> gathered_;  // [ranks][rows][vocab_padded]
  std::vector<float> row_;       // [vocab]
  std::vector<float> kept_;      // [tokens][vocab], with keep_logits.

  std::atomic<int> step_{0};     // One more: compute input_, or stop.
  std::atomic<bool> stopping_{false};
  mutable std::mutex mutex_;     // Of error_ and the ranks' progress.
  std::string error_;
  std::vector<std::thread> threads_;
};

std::unique_ptr<CpuRunner> CpuRunner::Create(const ModelConfig& config, const TensorSource& source,
                                             const CpuRunnerOptions& options, std::string& error) {
  if (!CheckOptions(options, error)) return nullptr;
  try {
    auto impl = std::make_unique<Impl>(config, options);
    if (!impl->Start(source, error)) return nullptr;
    return std::unique_ptr<CpuRunner>(new CpuRunner(std::move(impl)));
  } catch (const std::bad_alloc&) {
    error = NoMemory(options);
    return nullptr;
  } catch (const std::exception& exception) {
    error = "the " + std::to_string(options.ranks) +
            " ranks could not be started: " + exception.what();
    return nullptr;
  }
}

CpuRunner::CpuRunner(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
CpuRunner::~CpuRunner() = default;

const RunnerInfo& CpuRunner::info() const { return impl_->info(); }
RunStatus CpuRunner::Run(const StepPlan& plan, StepResult& result) {
  return impl_->Run(plan, result);
}
std::string CpuRunner::error() const { return impl_->error(); }
void CpuRunner::Abort() { impl_->Abort(); }
std::span<const float> CpuRunner::kept_logits(int32_t index) const {
  return impl_->kept_logits(index);
}
int64_t CpuRunner::weight_bytes(int rank) const { return impl_->weight_bytes(rank); }

}  // namespace penstock::engine
