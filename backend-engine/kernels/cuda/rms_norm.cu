// RMSNorm with the residual addition in front of it.
//
// Bound by memory: per number it reads x (2 bytes) and the residual (4) and
// writes the residual (4) and out (2), for some five operations. Hence
//   - one pass: a row stays in registers between the sum and the scaling, so
//     each byte crosses the bus once;
//   - 16-byte loads and stores, neighbouring threads on neighbouring vectors;
//   - one block a row with just enough threads for it, so that a decode step's
//     few rows spread over as many multiprocessors as there are rows.
// The residual is fp32, as on the CPU: it is the one number that 2 * layers
// roundings would go into.
#include "backend-engine/kernels/cuda/load_kernels.h"
#include "backend-engine/kernels/cuda/norm_row.cuh"

namespace penstock::engine::cuda {
namespace {

// Block b norms row b.
__global__ void __launch_bounds__(kBlockThreadsMax) RmsNormKernel(RmsNormCall call) {
  const Bf16* row = call.x + int64_t{blockIdx.x} * call.width;
  NormRow(call, blockIdx.x,
          [&](int at, float (&numbers)[kVector]) { LoadBf16(row + at, numbers); });
}

}  // namespace

GpuError RmsNorm(const RmsNormCall& call, Stream stream) {
  if (!NormTakes(call)) return kGpuInvalid;
  if (call.token_count == 0) return kGpuOk;
  return Launch(RmsNormKernel, dim3(call.token_count), NormThreads(call.width), 0, stream, call);
}

GpuError LoadRmsNorm() { return LoadKernels(RmsNormKernel); }

}  // namespace penstock::engine::cuda
