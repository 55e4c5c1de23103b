// The emulated GPU's streams: work is queued, or noted where the stream records a
// graph. And what it remembers of kernels.
#pragma once

#include <functional>

#include "backend-engine/kernels/cuda/gpu.h"

namespace penstock::engine::emulated {

// Without a stream it is done at once.
void Perform(cuda::Stream stream, std::function<void()> work);

// Bytes that each emulated GPU has, or that one; what is allocated already stays.
void SetGpuMemory(int64_t bytes);
void SetGpuMemory(int gpu, int64_t bytes);
void SetGpuCount(int count);

// While this is true, DestroyGraph() does not come back, as of a driver whose GPU hangs.
void HoldGraphs(bool hold);

// While this is true, every call of NCCL's twin is refused.
void RefuseNccl(bool refuse);

// What lies between any two events. 0 from the start: nothing is timed here.
void SetMilliseconds(float ms);

// Kernels that were launched though nobody had loaded them, since the program began.
int LaunchedUnloaded();
void NoteLoaded(const void* kernel);
void NoteLaunched(const void* kernel);

}  // namespace penstock::engine::emulated
