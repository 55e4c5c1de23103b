#include "backend-engine/model/shard.h"

#include <algorithm>

#include "backend-engine/kernels/matrix.h"

namespace penstock::engine {
namespace {

int64_t RoundUp(int64_t value, int64_t step) { return (value + step - 1) / step * step; }

// The rank's part where every rank but the last ones holds `each`.
Range Cut(int64_t total, int64_t each, int rank) {
  const int64_t first = std::min(total, each * rank);
  return {first, std::min(each, total - first)};
}

}  // namespace

bool MakeShard(const ModelConfig& config, int rank, int size, Shard& shard, std::string& error,
               int64_t inner_step) {
  const int64_t heads = config.head_count;
  const int64_t kv_heads = config.kv_head_count;
  if (size < 1 || heads % size != 0) {
    error = "tensor parallel " + std::to_string(size) + ": " + std::to_string(heads) +
            " attention heads cannot be cut into " + std::to_string(size) +
            " equal parts; choose a divisor of " + std::to_string(heads);
    return false;
  }
  if (kv_heads % size != 0 && size % kv_heads != 0) {
    error = "tensor parallel " + std::to_string(size) + ": " + std::to_string(kv_heads) +
            " key-value heads can be neither shared out to nor repeated over " +
            std::to_string(size) + " ranks; choose a divisor or a multiple of " +
            std::to_string(kv_heads);
    return false;
  }
  if (config.head_dim < 2 || config.head_dim % 2 != 0) {
    error = "head_dim is " + std::to_string(config.head_dim) +
            "; rotary positions turn pairs, so it must be even";
    return false;
  }
  shard.rank = rank;
  shard.size = size;
  shard.heads = {heads / size * rank, heads / size};
  shard.kv_heads = kv_heads >= size ? Range{kv_heads / size * rank, kv_heads / size}
                                    : Range{rank / (size / kv_heads), 1};
  shard.intermediate_padded = RoundUp(RoundUp(config.intermediate_size, size) / size, inner_step);
  shard.intermediate = Cut(config.intermediate_size, shard.intermediate_padded, rank);
  shard.vocab_padded = RoundUp(RoundUp(config.vocab_size, size) / size, kPanelRows);
  shard.vocab = Cut(config.vocab_size, shard.vocab_padded, rank);
  return true;
}

}  // namespace penstock::engine
