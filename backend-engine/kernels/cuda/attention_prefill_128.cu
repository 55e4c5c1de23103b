// Prefill attention for heads of 128 numbers; the idea is told in attention_prefill.cuh.
#include "backend-engine/kernels/cuda/attention_prefill.cuh"
#include "backend-engine/kernels/cuda/load_kernels.h"

namespace penstock::engine::cuda {

GpuError AttentionPrefill128(const AttentionCall& call, Stream stream) {
  return LaunchPrefill<128>(call, stream);
}

GpuError LoadAttentionPrefill128() { return LoadKernels(AttentionPrefillKernel<128>); }

}  // namespace penstock::engine::cuda
