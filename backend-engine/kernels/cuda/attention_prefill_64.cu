// Prefill attention for heads of 64 numbers; the idea is told in attention_prefill.cuh.
#include "backend-engine/kernels/cuda/attention_prefill.cuh"
#include "backend-engine/kernels/cuda/load_kernels.h"

namespace penstock::engine::cuda {

GpuError AttentionPrefill64(const AttentionCall& call, Stream stream) {
  return LaunchPrefill<64>(call, stream);
}

GpuError LoadAttentionPrefill64() { return LoadKernels(AttentionPrefillKernel<64>); }

}  // namespace penstock::engine::cuda
