// Decode attention for heads of 128 numbers; the idea is told in attention_decode.cuh.
#include "backend-engine/kernels/cuda/attention_decode.cuh"
#include "backend-engine/kernels/cuda/load_kernels.h"

namespace penstock::engine::cuda {

GpuError AttentionDecode128(const AttentionCall& call, Stream stream) {
  return LaunchDecodeOfDim<128>(call, stream);
}

GpuError LoadAttentionDecode128() {
  return LoadKernels(AttentionDecodeKernel<128, 1>, AttentionDecodeKernel<128, 2>,
                     AttentionDecodeKernel<128, 4>, AttentionDecodeKernel<128, 8>);
}

}  // namespace penstock::engine::cuda
