// The weights of one tensor-parallel rank, copied out of a checkpoint into the
// kernels' layout: only this rank's rows or columns of each matrix, with q, k
// and v in one matrix and gate and up in another. Norms and biases are fp32.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "backend-engine/kernels/matrix.h"
#include "backend-engine/model/model_config.h"
#include "backend-engine/model/shard.h"
#include "backend-engine/model/tensor_view.h"

namespace penstock::engine {

struct LayerWeights {
  const float* input_norm = nullptr;
  Matrix qkv;                          // Rows: query heads, key heads, value heads of this rank.
  const float* qkv_bias = nullptr;     // Biases are null where the model has none, and those of
  Matrix output;                       // row-parallel matrices on every rank but the first.
  const float* output_bias = nullptr;
  const float* mlp_norm = nullptr;
  Matrix gate_up;                      // Rows: gate, then up, each shard.intermediate_padded.
  const float* gate_up_bias = nullptr;
  Matrix down;
  const float* down_bias = nullptr;
};

struct Weights {
  Matrix embeddings;  // Rows: this rank's part of the vocabulary, padded.
  Matrix lm_head;     // The same memory as embeddings where they are tied.
  const float* final_norm = nullptr;
  std::vector<LayerWeights> layers;
  int64_t bytes = 0;
  std::unique_ptr<std::byte, void (*)(void*)> storage{nullptr, nullptr};
};

// Called now and then while loading, on the loading thread: bytes of this
// rank's share read so far, and in all.
using LoadProgress = std::function<void(int64_t done, int64_t total)>;

// `dtype` is the format of matrices in memory; nothing: as they are stored.
// Returns false and says in `error` which tensor is missing or mis-shaped, and
// what was expected of it.
bool LoadWeights(const ModelConfig& config, const Shard& shard, const TensorSource& source,
                 std::optional<DType> dtype, const LoadProgress& progress, Weights& weights,
                 std::string& error);

}  // namespace penstock::engine
