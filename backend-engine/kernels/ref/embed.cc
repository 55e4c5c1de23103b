#include "backend-engine/kernels/ref/ops.h"

namespace penstock::engine::reference {

void Embed(const EmbedArgs& args) {
  for (int64_t t = 0; t < args.token_count; ++t) {
    const int64_t row = args.tokens[t] - args.first_row;
    const bool ours = row >= 0 && row < args.table.rows;
    for (int64_t i = 0; i < args.table.cols; ++i) {
      args.out[t * args.table.cols + i] = ours ? ElementAt(args.table, row, i) : 0.0f;
    }
  }
}

}  // namespace penstock::engine::reference
