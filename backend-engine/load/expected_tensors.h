// Which tensors a checkpoint must hold, in which shapes, for its config.json
// to be true of it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "backend-engine/model/model_config.h"
#include "backend-engine/model/tensor_view.h"

namespace penstock::engine {

struct ExpectedTensor {
  std::string name;
  std::vector<int64_t> shape;
};

std::vector<ExpectedTensor> ExpectedTensors(const ModelConfig& config);

// One line that names the first few tensors that are missing or mis-shaped,
// and counts the rest.
absl::Status CheckExpectedTensors(const ModelConfig& config, const TensorSource& source);

}  // namespace penstock::engine
