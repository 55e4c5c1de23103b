// The fast twins of one level. See simd.h for how these files are compiled.
#pragma once

#include "backend-engine/kernels/kernels.h"

namespace penstock::engine::PENSTOCK_LEVEL {

void Embed(const EmbedArgs& args);
void RmsNorm(const RmsNormArgs& args);
void Linear(const LinearArgs& args);
void RopeKvWrite(const RopeKvWriteArgs& args);
void PagedAttention(const PagedAttentionArgs& args);
void SiluMul(const SiluMulArgs& args);
void Add(const float* x, int64_t count, float* sum);
ArgMaxResult ArgMax(const float* row, int64_t count);
double ExpSum(const float* row, int64_t count, float max, float scale, float* out);

}  // namespace penstock::engine::PENSTOCK_LEVEL
