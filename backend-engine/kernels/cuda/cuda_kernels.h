// The GPU's operations, each with a twin of plain C++ in kernels/ref that says
// what is computed. Activations are bf16 in memory (the residual is fp32) and
// sums are fp32; there everything is fp32.
//
// Pointers are memory of the GPU, 16-byte aligned; rows lie one after another,
// and widths are multiples of 8. bf16 numbers are given as their bits. A call
// only queues work on `stream`; it returns an error and queues nothing for a
// shape that the kernel does not take (kGpuInvalid) or where the launch fails.
#pragma once

#include <cstdint>

#include "backend-engine/kernels/cuda/gpu.h"

namespace penstock::engine::cuda {

using Bf16 = uint16_t;

// out[t] = row tokens[t] - first_row of table[rows][width], or zeros where another rank has it.
struct EmbedCall {
  const int32_t* tokens;
  int32_t token_count;
  const Bf16* table;
  int32_t first_row, row_count, width;
  Bf16* out;
};
GpuError Embed(const EmbedCall& call, Stream stream);

// residual[t] += x[t] (or = x[t] where `starts`), out[t] = residual[t] / rms * weight,
// with rms = sqrt(mean(residual[t]^2) + epsilon).
struct RmsNormCall {
  const Bf16* x;
  float* residual;
  bool starts;
  const float* weight;
  int32_t token_count, width;
  float epsilon;
  Bf16* out;
};
inline constexpr int32_t kRmsNormWidthMax = 32768;
GpuError RmsNorm(const RmsNormCall& call, Stream stream);

// y[t][r] = bias[r] + sum over c of weight[r][c] * x[t][c], for at most
// kGemvTokensMax tokens: weights are read once, at the speed of memory.
struct GemvCall {
  const Bf16* x;
  int32_t token_count;
  const Bf16* weight;  // [rows][cols]
  const Bf16* bias;    // May be null.
  int32_t rows, cols;
  Bf16* y;             // [token_count][rows], or null ...
  float* y_float;      // ... and then this.
};
inline constexpr int32_t kGemvTokensMax = 4;
GpuError Gemv(const GemvCall& call, Stream stream);

// The same over the rows [gate | up] of `weight`, followed by SiluMul: `y` is
// [token_count][rows / 2].
GpuError GemvSiluMul(const GemvCall& call, Stream stream);

// Turns queries and keys of rows [heads | kv_heads | kv_heads] * head_dim by
// their positions, queries in place; keys and values go to place slots[t] of the
// cache, [blocks][kv_heads][block_tokens][head_dim].
struct RopeKvWriteCall {
  Bf16* qkv;
  int32_t token_count;
  int32_t heads, kv_heads, head_dim, block_tokens;
  const int32_t* positions;
  const int64_t* slots;
  const float* cosines;  // [position][head_dim / 2]
  const float* sines;
  Bf16* keys;
  Bf16* values;
};
GpuError RopeKvWrite(const RopeKvWriteCall& call, Stream stream);

// One sequence's share of an attention call; see kernels.h. Blocks are
// block_table[first_block ...].
struct GpuSequence {
  int32_t first_token, token_count, start, first_block;
};
// A prefill block's share: query rows [first_row, + kPrefillRows) of a sequence,
// where row r is head r % group of its token r / group.
struct PrefillTile {
  int32_t sequence, first_row;
};
inline constexpr int32_t kPrefillRows = 128;

inline constexpr int32_t kAttentionSplitsMax = 128;
inline constexpr int32_t kDecodesMax = 65535;  // Sequences that decode at once: a grid has no more in y, z.
struct AttentionCall {
  const Bf16* qkv;
  int32_t heads, kv_heads, head_dim, block_tokens;
  float scale;
  const Bf16* keys;
  const Bf16* values;
  const GpuSequence* sequences;
  const int32_t* block_table;
  Bf16* out;  // [tokens][heads * head_dim]

  // Decode: those of `sequences` that `decodes` lists, each of one token.
  const int32_t* decodes;
  int32_t decode_count;   // At most kDecodesMax.
  int32_t splits;         // Parts into which each context is cut, at most kAttentionSplitsMax.
  float* partial;         // [decode_count][heads][splits][head_dim], where splits > 1
  float* partial_stats;   // [decode_count][heads][splits][2]: largest score, sum of weights

  // Prefill: all other sequences, in tiles.
  const PrefillTile* tiles;
  int32_t tile_count;
};
// Head sizes that attention takes.
constexpr bool AttentionTakes(int32_t head_dim) { return head_dim == 64 || head_dim == 128; }
GpuError AttentionDecode(const AttentionCall& call, Stream stream);
GpuError AttentionPrefill(const AttentionCall& call, Stream stream);

// out[t][i] = silu(gate_up[t][i]) * gate_up[t][width + i], i below width.
struct SiluMulCall {
  const Bf16* gate_up;
  int32_t token_count, width;
  Bf16* out;
};
GpuError SiluMul(const SiluMulCall& call, Stream stream);

// out[i] = rows[indexes[i]].
struct GatherRowsCall {
  const Bf16* rows;
  const int32_t* indexes;
  int32_t count, width;
  Bf16* out;
};
GpuError GatherRows(const GatherRowsCall& call, Stream stream);

// How one sequence wants its next token chosen; model/sampler.h says in which order.
struct SampleRow {
  int32_t logit_row;
  float temperature;
  int32_t top_k;
  float top_p, min_p;
  float repetition_penalty, presence_penalty, frequency_penalty;
  double draw;             // From [0, 1): the seed's number for this place of the answer.
  int32_t top_count;       // -1: no log probabilities; n: the chosen token's and the n best.
  int32_t history_first, history_count;  // Of SampleCall::history; 0 tokens without penalties.
  int32_t prompt_count;    // Of them, from the front.
  int32_t bias_first, bias_count;        // Of SampleCall::biases.
  int32_t mask_first = -1;               // Of SampleCall::masks: MaskWords(vocab) of them; -1: none.
};
constexpr int32_t MaskWords(int64_t vocab) { return static_cast<int32_t>((vocab + 31) / 32); }
inline constexpr float kForbiddenLogit = -1e30f;
struct TokenBias {
  int32_t token;
  float bias;
};
inline constexpr int32_t kSampleTopMax = 20;
inline constexpr int32_t kNoTokenFinite = -1;   // In place of a token: a logit is not finite,
inline constexpr int32_t kNoTokenAllowed = -2;  // or the mask allows none.
struct SampledRow {
  int32_t token;
  float logprob;
  int32_t top_tokens[kSampleTopMax];
  float top_logprobs[kSampleTopMax];
};

// Logits lie as ranks gather them: [ranks][logit_rows][padded], with token v at
// rank v / padded, place v % padded.
struct SampleCall {
  const float* logits;
  int32_t ranks, logit_rows, padded, vocab;
  const SampleRow* rows;
  int32_t row_count;
  const int32_t* history;
  const TokenBias* biases;
  const uint32_t* masks;  // A bit a token: it may be chosen.
  float* work;      // [row_count][vocab]
  int32_t* counts;  // [row_count][vocab]; zero before and after.
  SampledRow* out;
};
GpuError Sample(const SampleCall& call, Stream stream);

}  // namespace penstock::engine::cuda
