// The arithmetic of a model as one table of operations. Each has a plain
// reference (ref/) that says what it means, and fast twins (cpu/) for every
// instruction set we know; all are interchangeable up to rounding.
//
// Activations are fp32 and row-major, one row a token. On a CPU every result
// row depends on its own input row alone and is summed in an order that does
// not depend on how many rows there are: a sequence gets bitwise the same
// answer alone or batched, in one piece or in chunks.
//
// Threads: an operation runs on the calling thread, keeps no state and
// allocates nothing.
#pragma once

#include <cstdint>

#include "backend-engine/kernels/dtype.h"
#include "backend-engine/kernels/matrix.h"

namespace penstock::engine {

// out[t] = row tokens[t] - first_row of `table`, or zeros where another rank
// has that row.
struct EmbedArgs {
  const int32_t* tokens = nullptr;
  int64_t token_count = 0;
  Matrix table;
  int64_t first_row = 0;
  float* out = nullptr;
};

// residual[t] += x[t] (where x is not null), out[t] = residual[t] *
// rsqrt(mean(residual[t]^2) + eps) * weight.
struct RmsNormArgs {
  const float* x = nullptr;
  float* residual = nullptr;
  const float* weight = nullptr;
  int64_t token_count = 0;
  int64_t width = 0;
  float eps = 0;
  float* out = nullptr;
};

// y[t][r] = bias[r] + sum over c of weight[r][c] * x[t][c].
// With bfloat16 weights x is rounded to bfloat16 first and products are summed
// in fp32; with float32 and float16 weights x is taken as it is.
struct LinearArgs {
  const float* x = nullptr;     // [token_count][weight.cols]
  int64_t token_count = 0;
  Matrix weight;
  const float* bias = nullptr;  // May be null.
  float* y = nullptr;           // [token_count][weight.rows]
  float* scratch = nullptr;     // LinearScratch(token_count, cols) numbers.
};
constexpr int64_t LinearScratch(int64_t tokens, int64_t cols) {
  return tokens * (cols + 1);  // Odd rows are padded.
}

// One layer's share of the paged cache: keys and values, each
// [blocks][kv_heads][block_tokens][head_dim].
struct KvLayer {
  std::byte* keys = nullptr;
  std::byte* values = nullptr;
  DType dtype = DType::kF32;    // kF32 or kBf16.
  int32_t kv_heads = 0;
  int32_t block_tokens = 0;
  int32_t head_dim = 0;         // Even.
};

// Turns the queries and keys of qkv rows [heads | kv_heads | kv_heads] * head_dim
// by their positions (halves, as rotate_half does), queries in place, and
// writes keys and values of token t to place slots[t] = block * block_tokens +
// offset of the cache.
struct RopeKvWriteArgs {
  float* qkv = nullptr;
  int64_t token_count = 0;
  int32_t heads = 0;
  const int32_t* positions = nullptr;
  const int64_t* slots = nullptr;
  const float* cosines = nullptr;  // [position][head_dim / 2]
  const float* sines = nullptr;
  KvLayer kv;
};

// One sequence's share of an attention call: tokens [first_token, first_token +
// token_count) of the step stand at positions start, start + 1, ...
struct AttentionSequence {
  int32_t first_token = 0;
  int32_t token_count = 0;
  int32_t start = 0;
  const int32_t* blocks = nullptr;
};

// Causal attention of the queries in qkv rows over the cache, which already
// holds the step's own keys and values. Query head h reads KV head
// h / (heads / kv_heads). Prefill chunks and decode steps may be mixed.
struct PagedAttentionArgs {
  const float* qkv = nullptr;
  int32_t heads = 0;
  float scale = 0;
  KvLayer kv;
  const AttentionSequence* sequences = nullptr;
  int64_t sequence_count = 0;
  float* out = nullptr;      // [tokens][heads * head_dim]
  float* scratch = nullptr;  // AttentionScratch(head_dim, block_tokens) numbers.
};
inline constexpr int64_t kAttentionTile = 4;  // Queries that share one walk over the cache.
constexpr int64_t AttentionScratch(int64_t head_dim, int64_t block_tokens) {
  return kAttentionTile * (head_dim + block_tokens + 64);
}

// out[t][i] = silu(gate_up[t][i]) * gate_up[t][width + i], i below width.
struct SiluMulArgs {
  const float* gate_up = nullptr;
  int64_t token_count = 0;
  int64_t width = 0;
  float* out = nullptr;
};

struct ArgMaxResult {
  int32_t index = -1;   // The first of the largest.
  float value = 0;
  bool finite = false;  // Every number of the row is finite; if not, the rest means nothing.
};

struct Kernels {
  const char* name;
  void (*embed)(const EmbedArgs&);
  void (*rms_norm)(const RmsNormArgs&);
  void (*linear)(const LinearArgs&);
  void (*rope_kv_write)(const RopeKvWriteArgs&);
  void (*paged_attention)(const PagedAttentionArgs&);
  void (*silu_mul)(const SiluMulArgs&);
  void (*add)(const float* x, int64_t count, float* sum);  // sum[i] += x[i]
  ArgMaxResult (*arg_max)(const float* row, int64_t count);
  // out[i] = exp((row[i] - max) * scale), where out is not null; returns the sum.
  double (*exp_sum)(const float* row, int64_t count, float max, float scale, float* out);
};

// Instruction sets, each including those before it. kReference is the plain twin.
enum class CpuLevel { kReference, kBaseline, kAvx2, kAvx512, kAvx512Bf16 };
inline constexpr CpuLevel kCpuLevels[] = {CpuLevel::kReference, CpuLevel::kBaseline,
                                          CpuLevel::kAvx2, CpuLevel::kAvx512,
                                          CpuLevel::kAvx512Bf16};

// The table of a level, or null where this machine cannot run it.
const Kernels* KernelsAt(CpuLevel level);

// The fastest table that this machine can run.
const Kernels& BestKernels();

}  // namespace penstock::engine
