// Which tensors of a checkpoint a tensor-parallel rank needs, which part of
// each, and what they become together: q, k and v one matrix, gate and up
// another. The one place that knows the checkpoint's names; where the numbers
// go, and in which format, is the device's business.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "backend-engine/model/model_config.h"
#include "backend-engine/model/shard.h"
#include "backend-engine/model/tensor_view.h"

namespace penstock::engine {

enum class WeightRole {
  kEmbeddings, kLmHead, kFinalNorm,  // Of the model.
  kInputNorm, kQkv, kQkvBias, kOutput, kOutputBias,  // Of a layer, from here on.
  kMlpNorm, kGateUp, kGateUpBias, kDown, kDownBias,
};

constexpr bool IsMatrix(WeightRole role) {
  return role == WeightRole::kEmbeddings || role == WeightRole::kLmHead ||
         role == WeightRole::kQkv || role == WeightRole::kOutput || role == WeightRole::kGateUp ||
         role == WeightRole::kDown;
}
constexpr bool IsNorm(WeightRole role) {
  return role == WeightRole::kFinalNorm || role == WeightRole::kInputNorm ||
         role == WeightRole::kMlpNorm;
}

// A matrix [rows][cols], or a vector of `rows` numbers (cols is 1). What no part
// covers is padding, and zero.
struct WeightTarget {
  WeightRole role;
  int64_t layer = 0;
  int64_t rows = 0;
  int64_t cols = 1;
};

// One tensor of the checkpoint, or this rank's part of it.
struct WeightPart {
  std::string name;
  std::vector<int64_t> shape;  // Expected, whole.
  Range rows;                  // Ours; of a vector: its elements.
  Range cols;                  // Ours; of a vector: its one column.
  int target = 0;              // Index into targets ...
  int64_t at = 0;              // ... from this row on.
  TensorView view;             // Once found.
};

struct WeightPlan {
  std::vector<WeightTarget> targets;
  std::vector<WeightPart> parts;
};

// Biases of row-parallel matrices are planned on the first rank alone; with tied
// embeddings there is no kLmHead.
WeightPlan PlanWeights(const ModelConfig& config, const Shard& shard);

// Finds every part's tensor. False: `error` says which one is missing or
// mis-shaped, and what was expected of it.
bool FindTensors(const TensorSource& source, WeightPlan& plan, std::string& error);

// Bytes of the part in the checkpoint. REQUIRES: found.
int64_t SourceBytes(const WeightPart& part);

}  // namespace penstock::engine
