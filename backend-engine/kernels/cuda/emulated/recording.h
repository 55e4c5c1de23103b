// The emulated GPU's streams: work is done at once, or noted where the stream
// records a graph.
#pragma once

#include <functional>

#include "backend-engine/kernels/cuda/gpu.h"

namespace penstock::engine::emulated {

void Perform(cuda::Stream stream, std::function<void()> work);

// Bytes that the emulated GPU has; what is allocated already stays.
void SetGpuMemory(int64_t bytes);
void SetGpuCount(int count);

}  // namespace penstock::engine::emulated
