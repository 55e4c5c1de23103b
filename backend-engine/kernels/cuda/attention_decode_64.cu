// Decode attention for heads of 64 numbers; the idea is told in attention_decode.cuh.
#include "backend-engine/kernels/cuda/attention_decode.cuh"
#include "backend-engine/kernels/cuda/load_kernels.h"

namespace penstock::engine::cuda {

GpuError AttentionDecode64(const AttentionCall& call, Stream stream) {
  return LaunchDecodeOfDim<64>(call, stream);
}

GpuError LoadAttentionDecode64() {
  return LoadKernels(AttentionDecodeKernel<64, 1>, AttentionDecodeKernel<64, 2>,
                     AttentionDecodeKernel<64, 4>, AttentionDecodeKernel<64, 8>);
}

}  // namespace penstock::engine::cuda
