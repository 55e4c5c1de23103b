// llama.h on a GPU: the same decoder, queued as kernels on a rank's stream. One
// call queues a step; nothing is allocated and nothing waits, so that a CUDA
// graph can record it.
//
// Where a step has few tokens its products are GEMVs at the speed of memory,
// otherwise cuBLASLt's. The embedding and each block add to the residual through
// GpuComm, which sums over the ranks and norms in one go.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "backend-engine/kernels/cuda/cuda_kernels.h"
#include "backend-engine/kernels/cuda/gemm.h"
#include "backend-engine/model/gpu_step.h"
#include "backend-engine/model/gpu_weights.h"
#include "backend-engine/model/model_config.h"
#include "backend-engine/model/shard.h"
#include "backend-engine/parallel/gpu_comm.h"

namespace penstock::engine {

// Memory of the largest step on one rank.
struct GpuBuffers {
  float* residual = nullptr;          // [tokens][hidden]
  cuda::Bf16* normed = nullptr;       // [tokens][hidden]
  cuda::Bf16* branch[2] = {};         // [tokens][hidden]: what a block adds to the residual.
  cuda::Bf16* qkv = nullptr;          // [tokens][qkv rows]
  cuda::Bf16* attended = nullptr;     // [tokens][heads * head_dim]
  cuda::Bf16* gate_up = nullptr;      // [tokens][2 * inner]
  cuda::Bf16* gated = nullptr;        // [tokens][inner]
  cuda::Bf16* picked = nullptr;       // [rows][hidden]
  float* logits = nullptr;            // [rows][vocab_padded]
  float* partial = nullptr;           // Of decode attention, [partials][heads][head_dim]
  float* partial_stats = nullptr;     // [partials][heads][2]
  float* cosines = nullptr;           // [positions][head_dim / 2]
  float* sines = nullptr;
};

struct GpuKv {
  cuda::Bf16* keys;
  cuda::Bf16* values;
};

// What the buffers depend on. Rows of products are rounded up: GemmTokens().
struct GpuBufferSizes {
  int64_t tokens = 0;
  int64_t rows = 0;
  int64_t partials = 0;   // PartialsMax() of decode_plan.h.
  int64_t positions = 0;
};

// Places the buffers from `memory` on and returns the bytes they take; null: only counts.
int64_t PlaceGpuBuffers(const ModelConfig& config, const Shard& shard,
                        const GpuBufferSizes& sizes, std::byte* memory, GpuBuffers& buffers);

class GpuLlama {
 public:
  // Everything given is borrowed. `kv`: of each layer.
  GpuLlama(const ModelConfig& config, const Shard& shard, const GpuWeights& weights,
           std::span<const GpuKv> kv, const GpuBuffers& buffers, int32_t block_tokens,
           cuda::Gemm& gemm, GpuComm& comm);

  // Queues a step whose input is in `step`; logits of its rows are in the buffers then.
  // `splits`: of decode attention's contexts.
  cuda::GpuError Queue(const GpuStepShape& shape, const GpuStepMemory& step, int32_t splits,
                       cuda::Stream stream);

  // Gemm::Tune of a layer's products for steps of `tokens`, and of the logits of `rows`. Waits.
  bool TuneLayers(int32_t tokens, int guesses, cuda::Stream stream, std::string& error);
  bool TuneLogits(int32_t rows, int guesses, cuda::Stream stream, std::string& error);

 private:
  cuda::GpuError Attention(const GpuLayer& layer, const GpuKv& kv, const GpuStepShape& shape,
                           const GpuStepMemory& step, int32_t splits, cuda::Stream stream);
  cuda::GpuError Mlp(const GpuLayer& layer, int32_t tokens, cuda::Stream stream);
  cuda::GpuError Logits(const GpuStepShape& shape, const GpuStepMemory& step,
                        cuda::Stream stream);
  cuda::GpuError SumAndNorm(int buffer, bool starts, const float* weight, int32_t tokens,
                            cuda::Stream stream);
  cuda::GpuError Project(const cuda::GemvCall& call, cuda::Stream stream);

  cuda::GemvCall QkvCall(const GpuLayer& layer, int32_t tokens) const;
  cuda::GemvCall OutputCall(const GpuLayer& layer, int32_t tokens) const;
  cuda::GemvCall GateUpCall(const GpuLayer& layer, int32_t tokens) const;
  cuda::GemvCall DownCall(const GpuLayer& layer, int32_t tokens) const;
  cuda::GemvCall LogitsCall(const cuda::Bf16* x, int32_t rows) const;

  const ModelConfig& config_;
  const Shard& shard_;
  const GpuWeights& weights_;
  const std::span<const GpuKv> kv_;
  const GpuBuffers& buffers_;
  const int32_t block_tokens_;
  const int32_t hidden_, heads_, kv_heads_, head_dim_, inner_;
  cuda::Gemm& gemm_;
  GpuComm& comm_;
};

}  // namespace penstock::engine
