// The weights of one tensor-parallel rank in a GPU's memory: bf16 matrices row
// by row, bf16 biases, fp32 norms, in one piece that somebody else allocated.
//
// Rows go from the checkpoint's mapping through two pinned buffers, so that
// reading one overlaps copying the other.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "backend-engine/kernels/cuda/cuda_kernels.h"
#include "backend-engine/model/model_config.h"
#include "backend-engine/model/shard.h"
#include "backend-engine/model/tensor_view.h"
#include "backend-engine/model/weights.h"

namespace penstock::engine {

struct GpuLayer {
  const float* input_norm = nullptr;
  const cuda::Bf16* qkv = nullptr;          // Shapes as LayerWeights'.
  const cuda::Bf16* qkv_bias = nullptr;     // Biases are null where there is none.
  const cuda::Bf16* output = nullptr;
  const cuda::Bf16* output_bias = nullptr;
  const float* mlp_norm = nullptr;
  const cuda::Bf16* gate_up = nullptr;
  const cuda::Bf16* gate_up_bias = nullptr;
  const cuda::Bf16* down = nullptr;
  const cuda::Bf16* down_bias = nullptr;
};

struct GpuWeights {
  const cuda::Bf16* embeddings = nullptr;
  const cuda::Bf16* lm_head = nullptr;
  const float* final_norm = nullptr;
  std::vector<GpuLayer> layers;
};

// What the GPU's kernels ask of a rank's share: widths in whole vectors of 8.
// False: `error` says which one is not.
bool MakeGpuShard(const ModelConfig& config, int rank, int size, Shard& shard,
                  std::string& error);

int64_t GpuWeightBytes(const ModelConfig& config, const Shard& shard);

// Fills `memory` (GpuWeightBytes, 256-byte aligned) and waits for the GPU.
bool LoadGpuWeights(const ModelConfig& config, const Shard& shard, const TensorSource& source,
                    std::byte* memory, cuda::Stream stream, const LoadProgress& progress,
                    GpuWeights& weights, std::string& error);

}  // namespace penstock::engine
