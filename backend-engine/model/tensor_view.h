// A named, read-only tensor of a checkpoint, and the way a model asks for one.
// The bytes belong to whoever opened the checkpoint (a memory-mapped file) and
// outlive the loading of the model; data may be unaligned.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "backend-engine/kernels/dtype.h"

namespace penstock::engine {

struct TensorView {
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;          // Row-major, outermost first.
  std::span<const std::byte> bytes;    // Exactly the product of shape times SizeOf(dtype).
};

// Looks a tensor up by its Hugging Face name ("model.layers.0.mlp.up_proj.weight").
using TensorSource = std::function<std::optional<TensorView>(std::string_view name)>;

}  // namespace penstock::engine
