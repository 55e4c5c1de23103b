// A step's input as a GPU wants it: one piece of memory, the same layout on the
// host and on every GPU, whose parts lie at the same places in every step (a
// CUDA graph remembers them). Packed once a step into pinned memory; every rank
// copies what is used.
//
// A step in which every sequence has one token and wants its logits is a decode
// step. It may be padded to a bucket: sequences of one token at position 0, whose
// key and value go to a block that belongs to nobody.
#pragma once

#include <cstdint>

#include "backend-engine/kernels/cuda/cuda_kernels.h"
#include "backend-engine/kernels/cuda/peers.h"
#include "backend-engine/model/gpu_sampling.h"
#include "backend-engine/model/step_input.h"

namespace penstock::engine {

struct GpuStepLimits {
  StepLimits step;      // step.block_count does not count the padding's block.
  int32_t group = 1;    // Query heads of a KV head.
  int32_t rows = 0;     // Logits of at most so many tokens are wanted.
};

// What a step holds, in numbers.
struct GpuStepShape {
  int32_t tokens = 0;
  int32_t rows = 0;
  int32_t sequences = 0;
  int32_t decodes = 0;
  int32_t tiles = 0;
  int32_t bucket = 0;        // Padded to this: 0 where it is no decode step, or not padded.
  bool picks = false;        // Rows are not simply all tokens in their order.
  int32_t awaited = 0;          // Tokens that the step before chooses,
  int32_t awaited_history = 0;  // and places of histories that they take, too.
  int32_t awaited_rows = 0;     // The awaited are among so many samples of that step.
  int64_t table_entries = 0;
  int64_t bias_entries = 0;
  int64_t history_entries = 0;
  int64_t mask_words = 0;
};

// Pointers into one copy of the memory.
struct GpuStepMemory {
  int32_t* tokens;
  int32_t* positions;
  int64_t* slots;
  cuda::GpuSequence* sequences;
  int32_t* decodes;
  cuda::PrefillTile* tiles;
  int32_t* logit_rows;
  cuda::SampleRow* sample_rows;
  cuda::TokenPlace* awaited;
  cuda::TokenPlace* awaited_history;
  int32_t* block_table;  // From here on only what a step uses is copied.
  cuda::TokenBias* biases;
  int32_t* history;
  uint32_t* masks;
};

class GpuStepLayout {
 public:
  explicit GpuStepLayout(const GpuStepLimits& limits);

  int64_t bytes() const { return bytes_; }
  int64_t biases_max() const { return biases_max_; }
  int64_t history_max() const { return history_max_; }
  int64_t tiles_max() const { return tiles_max_; }
  const GpuStepLimits& limits() const { return limits_; }

  GpuStepMemory At(std::byte* memory) const;

  // Packs a step; `bucket` is 0, or at least the number of sequences of a decode
  // step. REQUIRES: `input` came from FillStepInput within the limits.
  GpuStepShape Pack(const StepInput& input, const GpuSampling& sampling, int32_t bucket,
                    std::byte* memory) const;

  // Copies the parts of a packed step that it uses.
  cuda::GpuError Copy(const GpuStepShape& shape, const std::byte* host, std::byte* gpu,
                      cuda::Stream stream) const;

 private:
  void Pad(int32_t first, GpuStepShape& shape, GpuStepMemory& to) const;

  const GpuStepLimits limits_;
  int64_t tiles_max_ = 0, biases_max_ = 0, history_max_ = 0;
  int64_t at_[14] = {};  // Of each part of GpuStepMemory, in its order.
  int64_t bytes_ = 0;
};

// True for a decode step, which a bucket can hold.
bool IsDecodeStep(const StepInput& input);

}  // namespace penstock::engine
