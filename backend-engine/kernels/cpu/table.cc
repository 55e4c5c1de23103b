#include "backend-engine/kernels/cpu/ops.h"

#define PENSTOCK_TEXT_OF(name) #name
#define PENSTOCK_TEXT(name) PENSTOCK_TEXT_OF(name)

namespace penstock::engine::PENSTOCK_LEVEL {

extern const Kernels kTable;
const Kernels kTable = {
    .name = PENSTOCK_TEXT(PENSTOCK_LEVEL),
    .embed = Embed,
    .rms_norm = RmsNorm,
    .linear = Linear,
    .rope_kv_write = RopeKvWrite,
    .paged_attention = PagedAttention,
    .silu_mul = SiluMul,
    .add = Add,
    .arg_max = ArgMax,
    .exp_sum = ExpSum,
};

}  // namespace penstock::engine::PENSTOCK_LEVEL
