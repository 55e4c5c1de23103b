// The steps that may be under way on GPUs, two of them: each packed for the ranks in
// pinned memory, and read when it is done. Rank 0's.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "backend-engine/exec/gpu_plan.h"
#include "backend-engine/exec/gpu_rank.h"
#include "backend-engine/model/gpu_sampling.h"
#include "backend-engine/model/gpu_step.h"
#include "backend-engine/model/step_input.h"

namespace penstock::engine {

// Written before the ranks are woken for it, and again only when all have done it: one
// runs while the next is packed.
struct GpuFlight {
  uint64_t number = 0;
  std::byte* packed = nullptr;  // Pinned.
  GpuStepShape shape;
  struct Asked {
    SequenceId id;
    int32_t logprobs;
  };
  std::vector<Asked> asked;     // Of each sample.
  int32_t samples() const { return static_cast<int32_t>(asked.size()); }
};

class GpuFlights {
 public:
  static constexpr uint64_t kCount = 2;

  // REQUIRES: both outlive it, and stay as they are.
  GpuFlights(const GpuGroup& group, const GpuPlan& plan);
  ~GpuFlights();  // REQUIRES: no GPU reads them any more.
  GpuFlights(const GpuFlights&) = delete;
  GpuFlights& operator=(const GpuFlights&) = delete;

  // Until there is a real step, the first one is of nothing but padding.
  bool Allocate(std::string& error);

  // Where a step is, of those that may be under way.
  static size_t TurnOf(uint64_t step) { return step % kCount; }
  GpuFlight& Of(uint64_t step) { return flights_[TurnOf(step)]; }

  // `awaited_max`: samples of the step before, where that is still under way. False:
  // `error` names the first number that is out of bounds.
  bool Pack(const StepPlan& plan, int32_t awaited_max, GpuFlight& flight, std::string& error);

  // REQUIRES: all ranks have done the step; with keep_logits, none was packed since.
  void Read(uint64_t step, const GpuRank& first, StepResult& result);

  // After Read(), with keep_logits.
  std::span<const float> kept_logits(int32_t index) const;

 private:
  void KeepLogits(const GpuFlight& flight, const float* logits);

  const GpuGroup& group_;
  const GpuPlan& plan_;
  GpuSampling sampling_;
  StepInput input_;                         // While it is packed.
  std::array<GpuFlight, kCount> flights_;
  std::vector<float> kept_;                 // [tokens][vocab], with keep_logits.
};

}  // namespace penstock::engine
