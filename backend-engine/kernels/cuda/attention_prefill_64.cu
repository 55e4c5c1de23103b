// Prefill attention for heads of 64 numbers; the idea is told in attention_prefill.cuh.
#include "backend-engine/kernels/cuda/attention_prefill.cuh"

namespace penstock::engine::cuda {

GpuError AttentionPrefill64(const AttentionCall& call, Stream stream) {
  return LaunchPrefill<64>(call, stream);
}

}  // namespace penstock::engine::cuda
