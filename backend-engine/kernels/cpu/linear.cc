// Matrix times activations, by panels of 16 outputs (matrix.h).
//
// A tile is kTokens rows of x times kPanels panels; its sums stay in registers
// while the columns go by. Every output is summed column after column, whatever
// the tile: that makes results independent of the batch, and lets a decode
// step's single token stream whole panels at memory speed. With bfloat16 the
// two columns of a pair are added second first, as vdpbf16ps does.
#include "backend-engine/kernels/cpu/ops.h"
#include "backend-engine/kernels/cpu/simd.h"

namespace penstock::engine::PENSTOCK_LEVEL {
namespace {

constexpr int kVecs = static_cast<int>(kPanelRows) / kLanes;  // Vectors of one panel column.

// A weight format says how a panel's next columns lie in memory (a step), in
// which order a step's columns are added, and how a vector of weights meets x.
struct F32Format {
  using X = float;
  using Loaded = Vec;
  static constexpr int kColumns = 1;
  static constexpr int64_t kStepBytes = kPanelRows * 4;
  static Loaded LoadColumn(const std::byte* at, int) {
    return Load(reinterpret_cast<const float*>(at));
  }
  static Vec MultiplyAdd(Vec sum, Loaded weights, const X* x) { return sum + weights * *x; }
};

struct F16Format {
  using X = float;
  using Loaded = Vec;
  static constexpr int kColumns = 1;
  static constexpr int64_t kStepBytes = kPanelRows * 2;
  static Loaded LoadColumn(const std::byte* at, int) {
#if defined(__AVX512F__)
    // The masked form: g++ 12 warns of the plain one's undefined source.
    return (Vec)_mm512_maskz_cvtph_ps(0xffff,
                                      _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at)));
#elif defined(__AVX2__)
    return (Vec)_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at)));
#else
    const uint16_t* half = reinterpret_cast<const uint16_t*>(at);
    Vec value = {};
    for (int lane = 0; lane < kLanes; ++lane) value[lane] = FloatFromF16(half[lane]);
    return value;
#endif
  }
  static Vec MultiplyAdd(Vec sum, Loaded weights, const X* x) { return sum + weights * *x; }
};

// Pairs widened to fp32, x rounded but held as fp32.
struct Bf16Format {
  using X = float;
  using Loaded = Vec;
  static constexpr int kColumns = 2;
  static constexpr int64_t kStepBytes = kPanelRows * 4;
  static Loaded LoadColumn(const std::byte* at, int column) {
    const WordVec words = LoadWords(at);
    return reinterpret_cast<Vec>(column == 0 ? words << 16 : words & 0xffff0000u);
  }
  static Vec MultiplyAdd(Vec sum, Loaded weights, const X* x) { return sum + weights * *x; }
};

#if defined(__AVX512BF16__)
// Pairs multiplied as they are. Worth it for a step's single token, whose
// weights would be widened for one use; with more tokens the processors that we
// know do more with two multiply-adds. Products of bfloat16 numbers are exact in
// fp32, so both ways give the same bits (but for sums below 1e-38, which this
// one takes for zero).
struct Bf16PairFormat {
  using X = uint32_t;  // Two neighbours of x in bfloat16, the first in the lower half.
  using Loaded = __m512bh;
  static constexpr int kColumns = 1;
  static constexpr int64_t kStepBytes = kPanelRows * 4;
  static Loaded LoadColumn(const std::byte* at, int) { return (__m512bh)_mm512_loadu_si512(at); }
  static Vec MultiplyAdd(Vec sum, Loaded weights, const X* x) {
    return (Vec)_mm512_dpbf16_ps((__m512)sum, weights,
                                 (__m512bh)_mm512_set1_epi32(static_cast<int>(*x)));
  }
};
#endif

template <typename Format>
struct Tiling {
  const typename Format::X* x;
  int64_t x_stride;
  int64_t steps;
  int64_t panel_bytes;
  const LinearArgs* args;
};

void StorePanel(const LinearArgs& args, int64_t token, int64_t panel, const Vec* sums) {
  const int64_t first = panel * kPanelRows;
  float* y = args.y + token * args.weight.rows + first;
  const float* bias = args.bias == nullptr ? nullptr : args.bias + first;
  const int64_t count = args.weight.rows - first;
  if (count >= kPanelRows) {
    for (int v = 0; v < kVecs; ++v) {
      const Vec sum = sums[v];
      Store(y + v * kLanes, bias == nullptr ? sum : sum + Load(bias + v * kLanes));
    }
    return;
  }
  for (int64_t i = 0; i < count; ++i) {
    const float sum = sums[i / kLanes][i % kLanes];
    y[i] = bias == nullptr ? sum : sum + bias[i];
  }
}

template <typename Format, int kTokens, int kPanels>
void RunTile(const Tiling<Format>& tiling, int64_t token, int64_t panel) {
  constexpr int kVectors = kPanels * kVecs;
  Vec sums[kTokens][kVectors] = {};
  const std::byte* weights = tiling.args->weight.data + panel * tiling.panel_bytes;
  const typename Format::X* x = tiling.x + token * tiling.x_stride;
  for (int64_t step = 0; step < tiling.steps; ++step) {
#pragma GCC unroll 2
    for (int column = Format::kColumns - 1; column >= 0; --column) {
      typename Format::Loaded loaded[kVectors];
#pragma GCC unroll 16
      for (int v = 0; v < kVectors; ++v) {
        loaded[v] = Format::LoadColumn(weights + (v / kVecs) * tiling.panel_bytes +
                                           step * Format::kStepBytes +
                                           (v % kVecs) * (Format::kStepBytes / kVecs),
                                       column);
      }
#pragma GCC unroll 16
      for (int t = 0; t < kTokens; ++t) {
        const typename Format::X* at = x + t * tiling.x_stride + step * Format::kColumns + column;
#pragma GCC unroll 16
        for (int v = 0; v < kVectors; ++v) {
          sums[t][v] = Format::MultiplyAdd(sums[t][v], loaded[v], at);
        }
      }
    }
  }
  for (int t = 0; t < kTokens; ++t) {
    for (int p = 0; p < kPanels; ++p) {
      StorePanel(*tiling.args, token + t, panel + p, &sums[t][p * kVecs]);
    }
  }
}

// Sums that fit the registers beside the weights: 32 with AVX-512, 16 without.
constexpr int kSumVectors = kLanes == 16 ? 24 : kLanes == 8 ? 12 : 8;
constexpr int kTokensMax = kLanes == 16 ? 6 : kLanes == 8 ? 6 : 2;

constexpr int PanelsFor(int tokens) {
  const int fit = kSumVectors / (tokens * kVecs);
  return fit >= 4 ? 4 : fit >= 2 ? 2 : 1;
}

template <typename Format, int kTokens>
void RunTokens(const Tiling<Format>& tiling, int64_t token, int64_t panel, int64_t panel_end) {
  constexpr int kPanels = PanelsFor(kTokens);
  for (; panel + kPanels <= panel_end; panel += kPanels) {
    RunTile<Format, kTokens, kPanels>(tiling, token, panel);
  }
  for (; panel < panel_end; ++panel) RunTile<Format, kTokens, 1>(tiling, token, panel);
}

// The last few tokens: as many at once as there are.
template <typename Format, int kTokens>
void RunRest(const Tiling<Format>& tiling, int64_t token, int64_t count, int64_t panel,
             int64_t panel_end) {
  if constexpr (kTokens > 0) {
    if (count == kTokens) {
      RunTokens<Format, kTokens>(tiling, token, panel, panel_end);
    } else {
      RunRest<Format, kTokens - 1>(tiling, token, count, panel, panel_end);
    }
  }
}

// Four panels of weights stay in the nearest caches while all tokens go by.
template <typename Format>
void Run(const Tiling<Format>& tiling) {
  const int64_t panels = (tiling.args->weight.rows + kPanelRows - 1) / kPanelRows;
  const int64_t tokens = tiling.args->token_count;
  for (int64_t panel = 0; panel < panels; panel += 4) {
    const int64_t end = panel + 4 < panels ? panel + 4 : panels;
    int64_t token = 0;
    for (; token + kTokensMax <= tokens; token += kTokensMax) {
      RunTokens<Format, kTokensMax>(tiling, token, panel, end);
    }
    RunRest<Format, kTokensMax - 1>(tiling, token, tokens - token, panel, end);
  }
}

// x rounded to bfloat16 and held as fp32, rows padded with a zero to whole pairs.
void RoundRows(const LinearArgs& args) {
  const int64_t cols = args.weight.cols;
  const int64_t padded = PaddedCols(DType::kBf16, cols);
  for (int64_t t = 0; t < args.token_count; ++t) {
    const float* from = args.x + t * cols;
    float* to = args.scratch + t * padded;
    int64_t i = 0;
    for (; i + kLanes <= cols; i += kLanes) Store(to + i, RoundedToBf16(Load(from + i)));
    for (; i < cols; ++i) to[i] = RoundedToBf16(Splat(from[i]))[0];
    for (; i < padded; ++i) to[i] = 0;
  }
}

#if defined(__AVX512BF16__)
void RunPairs(const LinearArgs& args, int64_t panel_bytes) {
  const int64_t cols = args.weight.cols;
  uint16_t* to = reinterpret_cast<uint16_t*>(args.scratch);
  int64_t i = 0;
  for (; i + kLanes <= cols; i += kLanes) StoreBf16(to + i, Load(args.x + i));
  for (; i < cols; ++i) to[i] = RoundToBf16(args.x[i]);
  to[i] = 0;  // Completes the last pair, or is not read.
  const int64_t pairs = (cols + 1) / 2;
  Run<Bf16PairFormat>(
      {reinterpret_cast<const uint32_t*>(args.scratch), pairs, pairs, panel_bytes, &args});
}
#endif

}  // namespace

void Linear(const LinearArgs& args) {
  const int64_t cols = args.weight.cols;
  const int64_t panel_bytes = PanelBytes(args.weight.dtype, cols);
  if (args.weight.dtype == DType::kF32) {
    Run<F32Format>({args.x, cols, cols, panel_bytes, &args});
  } else if (args.weight.dtype == DType::kF16) {
    Run<F16Format>({args.x, cols, cols, panel_bytes, &args});
  } else {
#if defined(__AVX512BF16__)
    if (args.token_count == 1) {
      RunPairs(args, panel_bytes);
      return;
    }
#endif
    RoundRows(args);
    const int64_t padded = PaddedCols(DType::kBf16, cols);
    Run<Bf16Format>({args.scratch, padded, padded / 2, panel_bytes, &args});
  }
}

}  // namespace penstock::engine::PENSTOCK_LEVEL
