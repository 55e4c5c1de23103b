#include <cmath>

#include "backend-engine/kernels/ref/kv_element.h"
#include "backend-engine/kernels/ref/ops.h"

namespace penstock::engine::reference {
namespace {

int64_t SlotOf(const AttentionSequence& sequence, const KvLayer& kv, int64_t position) {
  return sequence.blocks[position / kv.block_tokens] * static_cast<int64_t>(kv.block_tokens) +
         position % kv.block_tokens;
}

double Score(const PagedAttentionArgs& args, const float* query, int64_t slot, int64_t kv_head) {
  double dot = 0;
  for (int64_t i = 0; i < args.kv.head_dim; ++i) {
    dot += static_cast<double>(query[i]) *
           KvLoad(args.kv.keys, args.kv.dtype, KvIndex(args.kv, slot, kv_head, i));
  }
  return dot * args.scale;
}

// Three walks over the keys: the largest score, the sum, the values. Slow and plain.
void Attend(const PagedAttentionArgs& args, const AttentionSequence& sequence, int64_t position,
            int64_t kv_head, const float* query, float* out) {
  double largest = -INFINITY;
  for (int64_t p = 0; p <= position; ++p) {
    largest = std::fmax(largest, Score(args, query, SlotOf(sequence, args.kv, p), kv_head));
  }
  double sum = 0;
  for (int64_t p = 0; p <= position; ++p) {
    sum += std::exp(Score(args, query, SlotOf(sequence, args.kv, p), kv_head) - largest);
  }
  for (int64_t i = 0; i < args.kv.head_dim; ++i) out[i] = 0;
  for (int64_t p = 0; p <= position; ++p) {
    const int64_t slot = SlotOf(sequence, args.kv, p);
    const double weight = std::exp(Score(args, query, slot, kv_head) - largest) / sum;
    for (int64_t i = 0; i < args.kv.head_dim; ++i) {
      out[i] += static_cast<float>(
          weight * KvLoad(args.kv.values, args.kv.dtype, KvIndex(args.kv, slot, kv_head, i)));
    }
  }
}

}  // namespace

void PagedAttention(const PagedAttentionArgs& args) {
  const int64_t dim = args.kv.head_dim;
  const int64_t row = (args.heads + 2 * static_cast<int64_t>(args.kv.kv_heads)) * dim;
  const int64_t group = args.heads / args.kv.kv_heads;
  for (int64_t s = 0; s < args.sequence_count; ++s) {
    const AttentionSequence& sequence = args.sequences[s];
    for (int64_t i = 0; i < sequence.token_count; ++i) {
      const int64_t t = sequence.first_token + i;
      for (int64_t head = 0; head < args.heads; ++head) {
        Attend(args, sequence, sequence.start + i, head / group, args.qkv + t * row + head * dim,
               args.out + (t * args.heads + head) * dim);
      }
    }
  }
}

}  // namespace penstock::engine::reference
