// A Runner on this machine's processors: the model cut over N ranks, each a
// thread with its part of the weights and of the paged KV memory. The engine
// thread itself is rank 0, which also samples; the other ranks sleep between
// steps.
//
// A rank that fails makes the group abort, Run() return kFailed and error() say
// which rank and why; nobody waits for it.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "backend-engine/exec/runner.h"
#include "backend-engine/kernels/kernels.h"
#include "backend-engine/model/model_config.h"
#include "backend-engine/model/tensor_view.h"

namespace penstock::engine {

struct CpuRunnerOptions {
  int32_t ranks = 1;
  // Of the matrices in memory; nothing: as stored. float32 also means float32
  // keys and values, anything else bfloat16 ones.
  std::optional<DType> dtype;
  int32_t block_tokens = 16;
  int32_t block_count = 0;             // Of the KV pool; 0: as many as kv_bytes hold.
  int64_t kv_bytes = int64_t{256} << 20;  // All ranks and layers together.
  int32_t max_step_tokens = 512;
  int32_t max_sequences = 64;
  int32_t max_length = 0;              // Prompt and answer together; 0: the model's limit.
  const Kernels* kernels = nullptr;    // Null: the fastest this machine can run.
  bool keep_logits = false;            // Compute and keep the logits of every token of a step.
  // Bytes of weights read, over all ranks; called on any thread, one at a time.
  std::function<void(int64_t done, int64_t total)> progress;
};

class CpuRunner final : public Runner {
 public:
  // Loads the weights from `source`, which is not used afterwards. Null on
  // failure, with the reason in `error`: one line, what, found, expected.
  static std::unique_ptr<CpuRunner> Create(const ModelConfig& config, const TensorSource& source,
                                           const CpuRunnerOptions& options, std::string& error);
  ~CpuRunner() override;

  const RunnerInfo& info() const override;
  RunStatus Run(const StepPlan& plan, StepResult& result) override;
  std::string error() const override;
  void Abort() override;

  // The vocabulary's logits after token `index` of the last step's tokens.
  // REQUIRES: keep_logits, and the last Run() returned kOk.
  std::span<const float> kept_logits(int32_t index) const;

  int64_t weight_bytes(int rank) const;  // In memory.

 private:
  class Impl;
  explicit CpuRunner(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace penstock::engine
