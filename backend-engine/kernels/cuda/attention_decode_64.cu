// Decode attention for heads of 64 numbers; the idea is told in attention_decode.cuh.
#include "backend-engine/kernels/cuda/attention_decode.cuh"

namespace penstock::engine::cuda {

GpuError AttentionDecode64(const AttentionCall& call, Stream stream) {
  return LaunchDecodeOfDim<64>(call, stream);
}

}  // namespace penstock::engine::cuda
