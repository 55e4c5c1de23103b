// Prefill attention for heads of 128 numbers; the idea is told in attention_prefill.cuh.
#include "backend-engine/kernels/cuda/attention_prefill.cuh"

namespace penstock::engine::cuda {

GpuError AttentionPrefill128(const AttentionCall& call, Stream stream) {
  return LaunchPrefill<128>(call, stream);
}

}  // namespace penstock::engine::cuda
