// How a GPU's decode steps are cut: the batch sizes for which a CUDA graph is
// kept, and into how many splits each context is cut so that a small batch still
// keeps all multiprocessors reading. Plain arithmetic; a graph's shape depends
// on nothing else.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <vector>

namespace penstock::engine {

// Batch sizes with a graph, ascending, the last one `sequences_max`:
// close together where a sequence more costs something, and few in all: each takes
// memory for its graph, and time at start.
inline std::vector<int32_t> DecodeBuckets(int32_t sequences_max) {
  std::vector<int32_t> buckets;
  int32_t size = 1;
  while (size < sequences_max) {
    buckets.push_back(size);
    const auto eighth = static_cast<int32_t>(std::bit_floor(static_cast<uint32_t>(size)) / 8);
    size += size < 8 ? size : size < 64 ? 8 : size < 256 ? 16 : std::max(eighth, 64);
  }
  buckets.push_back(sequences_max);
  return buckets;
}

// The smallest bucket that holds `sequences`; 0 where none does.
inline int32_t BucketFor(const std::vector<int32_t>& buckets, int32_t sequences) {
  const auto found = std::lower_bound(buckets.begin(), buckets.end(), sequences);
  return found == buckets.end() ? 0 : *found;
}

inline constexpr int32_t kSplitsMax = 128;
inline constexpr int32_t kSplitKeysMin = 64;     // Fewer are not worth joining.
inline constexpr int32_t kBlocksOfAttention = 4;  // That a multiprocessor holds at once.

// Splits of each context in a batch of `sequences`, none longer than `positions`.
inline int32_t DecodeSplits(int32_t sequences, int32_t kv_heads, int32_t sm_count,
                            int64_t positions) {
  const int64_t blocks = int64_t{std::max(sequences, 1)} * kv_heads;
  const int64_t wanted = (int64_t{sm_count} * kBlocksOfAttention + blocks - 1) / blocks;
  const int64_t useful = std::max<int64_t>((positions + kSplitKeysMin - 1) / kSplitKeysMin, 1);
  return static_cast<int32_t>(std::clamp<int64_t>(std::min(wanted, useful), 1, kSplitsMax));
}

// Memory for partial results: the most sequences * splits of any batch.
inline int64_t PartialsMax(int32_t sequences_max, int32_t kv_heads, int32_t sm_count,
                           int64_t positions) {
  int64_t most = 0;
  for (int32_t n = 1; n <= sequences_max; ++n) {
    most = std::max(most, int64_t{n} * DecodeSplits(n, kv_heads, sm_count, positions));
  }
  return most;
}

}  // namespace penstock::engine
