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

// One line that names the first few of `names` that config.json does not account
// for, counts them and says what the likely cause is: weights that are not used
// mean wrong answers. What is known to hold nothing of its own may be there.
absl::Status CheckUnexpectedTensors(const ModelConfig& config,
                                    const std::vector<std::string>& names);

}  // namespace penstock::engine
