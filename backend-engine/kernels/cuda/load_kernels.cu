#include "backend-engine/kernels/cuda/load_kernels.h"

namespace penstock::engine::cuda {

GpuError LoadEveryKernel() {
  for (GpuError (*const load)() :
       {LoadAttentionDecode64, LoadAttentionDecode128, LoadAttentionMerge, LoadAttentionPrefill64,
        LoadAttentionPrefill128, LoadEmbed, LoadGatherRows, LoadGemv, LoadPeers, LoadRmsNorm,
        LoadRopeKvWrite, LoadSample, LoadSiluMul}) {
    if (const GpuError error = load(); error != kGpuOk) return error;
  }
  return kGpuOk;
}

}  // namespace penstock::engine::cuda
