// One walk over a sequence's blocks with a running maximum (online softmax).
//
// The queries of one KV head, token after token and all heads of its group,
// are taken in tiles of kAttentionTile, so that a block that was fetched serves
// several of them. What is computed for a query depends on the query and its
// own position alone, never on its neighbours in the tile: the answer is the
// same for any chunking.
#include "backend-engine/kernels/cpu/ops.h"
#include "backend-engine/kernels/cpu/simd.h"

namespace penstock::engine::PENSTOCK_LEVEL {
namespace {

Vec LoadAs(const float* from) { return Load(from); }
Vec LoadAs(const uint16_t* from) { return LoadBf16(from); }
float WidenAs(float value) { return value; }
float WidenAs(uint16_t bits) {
  return __builtin_bit_cast(float, static_cast<uint32_t>(bits) << 16);
}

struct Query {
  const float* q = nullptr;
  float* out = nullptr;
  float* sum = nullptr;     // [head_dim], not yet divided.
  float* scores = nullptr;  // [block_tokens], then their weights.
  int64_t position = 0;
  float largest = 0;
  float weight_sum = 0;
};

template <typename Number>
float Dot(const float* query, const Number* key, int64_t dim) {
  Vec sum = {};
  int64_t i = 0;
  for (; i + kLanes <= dim; i += kLanes) sum += Load(query + i) * LoadAs(key + i);
  float total = Sum(sum);
  for (; i < dim; ++i) total += query[i] * WidenAs(key[i]);
  return total;
}

// Turns the scores of `count` keys into weights relative to the new maximum and
// scales what was summed so far to it.
void Renormalise(Query& query, int64_t count, int64_t dim) {
  float largest = query.largest;
  for (int64_t j = 0; j < count; ++j) {
    if (query.scores[j] > largest) largest = query.scores[j];
  }
  const float correction = Exp(Splat(query.largest - largest))[0];
  query.largest = largest;
  float sum = 0;
  for (int64_t j = 0; j < count; j += kLanes) {
    Vec weights = Exp(Load(query.scores + j) - largest);
    for (int64_t lane = count - j; lane < kLanes; ++lane) weights[lane] = 0;
    Store(query.scores + j, weights);
    sum += Sum(weights);
  }
  query.weight_sum = query.weight_sum * correction + sum;
  if (correction != 1.0f) {
    int64_t i = 0;
    for (; i + kLanes <= dim; i += kLanes) Store(query.sum + i, Load(query.sum + i) * correction);
    for (; i < dim; ++i) query.sum[i] *= correction;
  }
}

template <typename Number>
void AddValues(Query& query, const Number* values, int64_t count, int64_t dim) {
  int64_t i = 0;
  for (; i + 2 * kLanes <= dim; i += 2 * kLanes) {
    Vec a = Load(query.sum + i);
    Vec b = Load(query.sum + i + kLanes);
    for (int64_t j = 0; j < count; ++j) {
      a += LoadAs(values + j * dim + i) * query.scores[j];
      b += LoadAs(values + j * dim + i + kLanes) * query.scores[j];
    }
    Store(query.sum + i, a);
    Store(query.sum + i + kLanes, b);
  }
  for (; i < dim; ++i) {
    float sum = query.sum[i];
    for (int64_t j = 0; j < count; ++j) sum += WidenAs(values[j * dim + i]) * query.scores[j];
    query.sum[i] = sum;
  }
}

template <typename Number>
void WalkBlocks(const PagedAttentionArgs& args, const AttentionSequence& sequence,
                int64_t kv_head, Query* tile, int64_t tile_size) {
  const KvLayer& kv = args.kv;
  const int64_t dim = kv.head_dim;
  const int64_t last = tile[tile_size - 1].position;
  for (int64_t first = 0; first <= last; first += kv.block_tokens) {
    const int64_t block = sequence.blocks[first / kv.block_tokens];
    const int64_t index = (block * kv.kv_heads + kv_head) * kv.block_tokens * dim;
    const Number* keys = reinterpret_cast<const Number*>(kv.keys) + index;
    const Number* values = reinterpret_cast<const Number*>(kv.values) + index;
    for (int64_t n = 0; n < tile_size; ++n) {
      Query& query = tile[n];
      int64_t count = query.position + 1 - first;
      if (count <= 0) continue;
      if (count > kv.block_tokens) count = kv.block_tokens;
      for (int64_t j = 0; j < count; ++j) {
        query.scores[j] = Dot(query.q, keys + j * dim, dim) * args.scale;
      }
      Renormalise(query, count, dim);
      AddValues(query, values, count, dim);
    }
  }
}

void RunTile(const PagedAttentionArgs& args, const AttentionSequence& sequence, int64_t kv_head,
             Query* tile, int64_t tile_size) {
  const int64_t dim = args.kv.head_dim;
  const int64_t stride = AttentionScratch(dim, args.kv.block_tokens) / kAttentionTile;
  for (int64_t n = 0; n < tile_size; ++n) {
    tile[n].sum = args.scratch + n * stride;
    tile[n].scores = tile[n].sum + dim;
    tile[n].largest = -__builtin_inff();
    tile[n].weight_sum = 0;
    // Scores past the last key are read by whole vectors and then set to zero.
    for (int64_t i = 0; i < stride; ++i) tile[n].sum[i] = 0;
  }
  if (args.kv.dtype == DType::kF32) {
    WalkBlocks<float>(args, sequence, kv_head, tile, tile_size);
  } else {
    WalkBlocks<uint16_t>(args, sequence, kv_head, tile, tile_size);
  }
  for (int64_t n = 0; n < tile_size; ++n) {
    const float factor = 1.0f / tile[n].weight_sum;
    for (int64_t i = 0; i < dim; ++i) tile[n].out[i] = tile[n].sum[i] * factor;
  }
}

}  // namespace

void PagedAttention(const PagedAttentionArgs& args) {
  const int64_t dim = args.kv.head_dim;
  const int64_t row = (args.heads + 2 * static_cast<int64_t>(args.kv.kv_heads)) * dim;
  const int64_t group = args.heads / args.kv.kv_heads;
  for (int64_t s = 0; s < args.sequence_count; ++s) {
    const AttentionSequence& sequence = args.sequences[s];
    for (int64_t kv_head = 0; kv_head < args.kv.kv_heads; ++kv_head) {
      Query tile[kAttentionTile];
      int64_t tile_size = 0;
      for (int64_t n = 0; n < sequence.token_count * group; ++n) {
        const int64_t t = sequence.first_token + n / group;
        const int64_t head = kv_head * group + n % group;
        tile[tile_size].q = args.qkv + t * row + head * dim;
        tile[tile_size].out = args.out + (t * args.heads + head) * dim;
        tile[tile_size].position = sequence.start + n / group;
        if (++tile_size == kAttentionTile || n + 1 == sequence.token_count * group) {
          RunTile(args, sequence, kv_head, tile, tile_size);
          tile_size = 0;
        }
      }
    }
  }
}

}  // namespace penstock::engine::PENSTOCK_LEVEL
