// The MLP's gate: silu(gate) * up. One vector a thread; bound by memory.
#include "backend-engine/kernels/cuda/cuda_kernels.h"
#include "backend-engine/kernels/cuda/load_kernels.h"
#include "backend-engine/kernels/cuda/numbers.cuh"
#include "backend-engine/kernels/cuda/silu.cuh"

namespace penstock::engine::cuda {
namespace {

constexpr int kThreads = 256;

// Thread i of the grid's row t: vector i of out[t].
__global__ void __launch_bounds__(kThreads) SiluMulKernel(SiluMulCall call) {
  const int vectors = call.width / kVector;
  const int64_t token = blockIdx.x;
  const int vector = blockIdx.y * kThreads + threadIdx.x;
  if (vector >= vectors) return;
  const Bf16* row = call.gate_up + token * 2 * call.width;
  float gate[kVector], up[kVector];
  LoadBf16(row + vector * kVector, gate);
  LoadBf16(row + call.width + vector * kVector, up);
#pragma unroll
  for (int i = 0; i < kVector; ++i) gate[i] = Silu(gate[i]) * up[i];
  StoreBf16(call.out + token * call.width + vector * kVector, gate);
}

}  // namespace

GpuError SiluMul(const SiluMulCall& call, Stream stream) {
  if (call.token_count < 0 || call.width <= 0 || call.width % kVector != 0) return kGpuInvalid;
  if (call.token_count == 0) return kGpuOk;
  const dim3 grid(call.token_count, DivideUp(call.width / kVector, kThreads));
  return Launch(SiluMulKernel, grid, kThreads, 0, stream, call);
}

GpuError LoadSiluMul() { return LoadKernels(SiluMulKernel); }

}  // namespace penstock::engine::cuda
