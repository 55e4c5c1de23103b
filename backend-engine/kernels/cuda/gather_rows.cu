// Picks the rows whose logits are wanted. One block a row.
#include "backend-engine/kernels/cuda/cuda_kernels.h"
#include "backend-engine/kernels/cuda/load_kernels.h"
#include "backend-engine/kernels/cuda/numbers.cuh"

namespace penstock::engine::cuda {
namespace {

constexpr int kThreads = 128;

__global__ void __launch_bounds__(kThreads) GatherRowsKernel(GatherRowsCall call) {
  const int vectors = call.width / kVector;
  const int64_t row = call.indexes[blockIdx.x];
  const auto* from = reinterpret_cast<const uint4*>(call.rows) + row * vectors;
  auto* to = reinterpret_cast<uint4*>(call.out) + int64_t{blockIdx.x} * vectors;
  for (int i = threadIdx.x; i < vectors; i += kThreads) to[i] = from[i];
}

}  // namespace

GpuError GatherRows(const GatherRowsCall& call, Stream stream) {
  if (call.count < 0 || call.width <= 0 || call.width % kVector != 0) return kGpuInvalid;
  if (call.count == 0) return kGpuOk;
  return Launch(GatherRowsKernel, dim3(call.count), kThreads, 0, stream, call);
}

GpuError LoadGatherRows() { return LoadKernels(GatherRowsKernel); }

}  // namespace penstock::engine::cuda
