// Embedding: each token's row of the table, or zeros where another rank holds
// it. One block a token, 16 bytes a thread and turn; bound by memory, and small.
#include "backend-engine/kernels/cuda/cuda_kernels.h"
#include "backend-engine/kernels/cuda/load_kernels.h"
#include "backend-engine/kernels/cuda/numbers.cuh"

namespace penstock::engine::cuda {
namespace {

constexpr int kThreads = 128;

__global__ void __launch_bounds__(kThreads) EmbedKernel(EmbedCall call) {
  const int64_t token = blockIdx.x;
  const int row = call.tokens[token] - call.first_row;
  const bool ours = row >= 0 && row < call.row_count;
  const int vectors = call.width / kVector;
  const auto* from = reinterpret_cast<const uint4*>(call.table) + int64_t{ours ? row : 0} * vectors;
  auto* to = reinterpret_cast<uint4*>(call.out) + token * vectors;
  for (int i = threadIdx.x; i < vectors; i += kThreads) to[i] = ours ? from[i] : uint4{0, 0, 0, 0};
}

}  // namespace

GpuError Embed(const EmbedCall& call, Stream stream) {
  if (call.token_count < 0 || call.width <= 0 || call.width % kVector != 0) return kGpuInvalid;
  if (call.token_count == 0) return kGpuOk;
  return Launch(EmbedKernel, dim3(call.token_count), kThreads, 0, stream, call);
}

GpuError LoadEmbed() { return LoadKernels(EmbedKernel); }

}  // namespace penstock::engine::cuda
