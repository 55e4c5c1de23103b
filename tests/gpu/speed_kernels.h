// The kernels alone: products and attention, at the shapes of real models.
#pragma once

#include "backend-engine/kernels/cuda/gemm.h"
#include "tests/gpu/gpu_clock.h"
#include "tests/gpu/speed.h"

namespace penstock::engine {

// What everything else is compared with.
void MeasureCeilings(const SpeedSizes& sizes, GpuClock& clock, cuda::Gemm& gemm, Report& report);

void MeasureProducts(const SpeedSizes& sizes, GpuClock& clock, cuda::Gemm& gemm, Report& report);

// Every sequence has blocks of its own, in order.
void MeasureAttention(const SpeedSizes& sizes, int sm_count, GpuClock& clock, Report& report);

}  // namespace penstock::engine
