// The CUDA kernels, each with a twin of plain C++ in kernels/ref that says what
// is computed; activations are bf16 here and fp32 there.
//
// Pointers are device memory, 16-byte aligned; rows lie one after another. A
// call only queues work on `stream` and returns cudaGetLastError of the launch,
// or cudaErrorInvalidValue, and queues nothing, for a shape that the kernel
// does not take.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <cstdint>

namespace penstock::engine::cuda {

// Columns that RmsNorm takes: a multiple of 8, and at most this many.
inline constexpr int32_t kRmsNormColumnsMax = 32768;

// For each row: residual += x, then out = residual / rms(residual) * weight,
// with rms(v) = sqrt(mean(v^2) + epsilon). The sum is rounded to bf16 before
// the norm, so that the residual kept is the residual normed; the mean is in
// fp32. Without `residual` (null), out = x / rms(x) * weight. `out` may be `x`.
//   x, residual, out: [rows, columns]   weight: [columns]
cudaError_t RmsNorm(__nv_bfloat16* out, __nv_bfloat16* residual, const __nv_bfloat16* x,
                    const __nv_bfloat16* weight, int32_t rows, int32_t columns, float epsilon,
                    cudaStream_t stream);

}  // namespace penstock::engine::cuda
