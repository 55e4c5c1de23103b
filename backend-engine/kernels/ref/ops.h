// The plain twins: what each operation of kernels.h means, in loops that can be
// checked by eye. Sums are carried in double, so that they are the oracle.
#pragma once

#include "backend-engine/kernels/kernels.h"

namespace penstock::engine::reference {

void Embed(const EmbedArgs& args);
void RmsNorm(const RmsNormArgs& args);
void Linear(const LinearArgs& args);
void RopeKvWrite(const RopeKvWriteArgs& args);
void PagedAttention(const PagedAttentionArgs& args);
void SiluMul(const SiluMulArgs& args);
void Add(const float* x, int64_t count, float* sum);
ArgMaxResult ArgMax(const float* row, int64_t count);
double ExpSum(const float* row, int64_t count, float max, float scale, float* out);

}  // namespace penstock::engine::reference
