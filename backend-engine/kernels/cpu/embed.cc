// A row of the panel layout is strided: a lane of every column. One token
// touches one cache line a column (pair), which is nothing beside the step.
#include "backend-engine/kernels/cpu/ops.h"

namespace penstock::engine::PENSTOCK_LEVEL {
namespace {

float Widen(DType dtype, uint16_t bits) {
  if (dtype == DType::kBf16) return __builtin_bit_cast(float, static_cast<uint32_t>(bits) << 16);
  return FloatFromF16(bits);
}

void CopyRow(const Matrix& table, int64_t row, float* out) {
  const int64_t panel = row / kPanelRows * PanelBytes(table.dtype, table.cols);
  const int64_t lane = row % kPanelRows;
  if (table.dtype == DType::kF32) {
    const float* in = reinterpret_cast<const float*>(table.data + panel) + lane;
    for (int64_t i = 0; i < table.cols; ++i) out[i] = in[i * kPanelRows];
    return;
  }
  const uint16_t* in = reinterpret_cast<const uint16_t*>(table.data + panel);
  const bool pairs = table.dtype == DType::kBf16;
  for (int64_t i = 0; i < table.cols; ++i) {
    const int64_t at = pairs ? (i / 2 * kPanelRows + lane) * 2 + i % 2 : i * kPanelRows + lane;
    out[i] = Widen(table.dtype, in[at]);
  }
}

}  // namespace

void Embed(const EmbedArgs& args) {
  const int64_t width = args.table.cols;
  for (int64_t t = 0; t < args.token_count; ++t) {
    const int64_t row = args.tokens[t] - args.first_row;
    float* out = args.out + t * width;
    if (row >= 0 && row < args.table.rows) {
      CopyRow(args.table, row, out);
    } else {
      for (int64_t i = 0; i < width; ++i) out[i] = 0;
    }
  }
}

}  // namespace penstock::engine::PENSTOCK_LEVEL
