// Which part of every matrix a tensor-parallel rank holds. Heads, the MLP's
// inner width and the vocabulary are cut into equal parts; where there are more
// ranks than key-value heads, neighbouring ranks hold the same one.
#pragma once

#include <cstdint>
#include <string>

#include "backend-engine/model/model_config.h"

namespace penstock::engine {

struct Range {
  int64_t first = 0;
  int64_t count = 0;
};

struct Shard {
  int rank = 0;
  int size = 1;
  Range heads;
  Range kv_heads;
  Range intermediate;   // The last ranks' may be shorter, or empty.
  Range vocab;          // Likewise; memory is laid out for vocab_padded rows.
  int64_t vocab_padded = 0;         // Rows of every rank: a multiple of a panel.
  int64_t intermediate_padded = 0;  // Columns of every rank.

  int64_t qkv_rows(const ModelConfig& config) const {
    return (heads.count + 2 * kv_heads.count) * config.head_dim;
  }
};

// Returns false and says why in `error` where the model cannot be cut so. The
// MLP's inner width is cut into multiples of `inner_step`.
bool MakeShard(const ModelConfig& config, int rank, int size, Shard& shard, std::string& error,
               int64_t inner_step = 2);

}  // namespace penstock::engine
