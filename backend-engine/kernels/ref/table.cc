#include "backend-engine/kernels/ref/ops.h"

namespace penstock::engine::reference {

extern const Kernels kTable;
const Kernels kTable = {
    .name = "reference",
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

}  // namespace penstock::engine::reference
