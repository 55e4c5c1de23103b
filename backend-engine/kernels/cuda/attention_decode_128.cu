// Decode attention for heads of 128 numbers; the idea is told in attention_decode.cuh.
#include "backend-engine/kernels/cuda/attention_decode.cuh"

namespace penstock::engine::cuda {

GpuError AttentionDecode128(const AttentionCall& call, Stream stream) {
  return LaunchDecodeOfDim<128>(call, stream);
}

}  // namespace penstock::engine::cuda
