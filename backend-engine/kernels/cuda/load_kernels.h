// Brings the kernels onto a GPU before the first of them is launched.
//
// CUDA loads a kernel when it is first launched, and that may wait for everything
// that runs on the GPU. Among ranks that share a GPU it would wait for ever: for a
// kernel of another rank that waits for the very rank whose kernel is being loaded.
// So each rank loads all of them before any rank's kernel waits for another's.
#pragma once

#include "backend-engine/kernels/cuda/gpu.h"

namespace penstock::engine::cuda {

GpuError LoadEveryKernel();  // Onto the current GPU.

// Those of one file each.
GpuError LoadAttentionDecode64();
GpuError LoadAttentionDecode128();
GpuError LoadAttentionMerge();
GpuError LoadAttentionPrefill64();
GpuError LoadAttentionPrefill128();
GpuError LoadEmbed();
GpuError LoadGatherRows();
GpuError LoadGemv();
GpuError LoadPeers();
GpuError LoadRmsNorm();
GpuError LoadRopeKvWrite();
GpuError LoadSample();
GpuError LoadSiluMul();

}  // namespace penstock::engine::cuda
