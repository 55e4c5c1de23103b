// Matrix times activations, by panels of 16 outputs (matrix.h).
//
// A tile is kTokens rows of x times kPanels panels; its sums stay in registers
// while the columns go by. Every output is summed column after column, whatever
// the tile: that makes results independent of the batch, and lets a decode
// step's single token stream whole panels at memory speed. With bfloat16 the
// two columns of a pair are added second first, as vdpbf16ps does, so that all
// levels agree.
#include "backend-engine/kernels/cpu/ops.h"
#include "backend-engine/kernels/cpu/simd.h"

namespace penstock::engine::PENSTOCK_LEVEL {
namespace {

constexpr int kVecs = static_cast<int>(kPanelRows) / kLanes;  // Vectors of one panel column.

// A weight format says how many numbers of x one column step takes, and how a
// step's vector of weights meets them.
struct F32Format {
  using X = float;
  static constexpr int64_t kStepBytes = kPanelRows * 4;
  using Loaded = Vec;
  static Loaded LoadWeights(const std::byte* at) {
    return Load(reinterpret_cast<const float*>(at));
  }
  static Vec MultiplyAdd(Vec sum, Loaded weights, const X* x) { return sum + weights * *x; }
};

struct F16Format {
  using X = float;
  static constexpr int64_t kStepBytes = kPanelRows * 2;
  using Loaded = Vec;
  static Loaded LoadWeights(const std::byte* at) {
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

struct Bf16Format {
  using X = uint32_t;  // Two neighbouring numbers of x, the first in the lower half.
  static constexpr int64_t kStepBytes = kPanelRows * 4;
#if defined(__AVX512BF16__)
  using Loaded = __m512bh;
  static Loaded LoadWeights(const std::byte* at) { return (__m512bh)_mm512_loadu_si512(at); }
  static Vec MultiplyAdd(Vec sum, Loaded weights, const X* x) {
    return (Vec)_mm512_dpbf16_ps((__m512)sum, weights,
                                 (__m512bh)_mm512_set1_epi32(static_cast<int>(*x)));
  }
#else
  struct Loaded {
    Vec first;
    Vec second;
  };
  static Loaded LoadWeights(const std::byte* at) {
    const WordVec words = LoadWords(at);
    return {reinterpret_cast<Vec>(words << 16), reinterpret_cast<Vec>(words & 0xffff0000u)};
  }
  static Vec MultiplyAdd(Vec sum, Loaded weights, const X* x) {
    sum += weights.second * __builtin_bit_cast(float, *x & 0xffff0000u);
    return sum + weights.first * __builtin_bit_cast(float, *x << 16);
  }
#endif
};

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
  Vec sums[kTokens][kPanels * kVecs] = {};
  const std::byte* weights = tiling.args->weight.data + panel * tiling.panel_bytes;
  const typename Format::X* x = tiling.x + token * tiling.x_stride;
  for (int64_t step = 0; step < tiling.steps; ++step) {
    typename Format::Loaded loaded[kPanels * kVecs];
#pragma GCC unroll 16
    for (int v = 0; v < kPanels * kVecs; ++v) {
      loaded[v] = Format::LoadWeights(weights + (v / kVecs) * tiling.panel_bytes +
                                      step * Format::kStepBytes +
                                      (v % kVecs) * (Format::kStepBytes / kVecs));
    }
#pragma GCC unroll 16
    for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 16
      for (int v = 0; v < kPanels * kVecs; ++v) {
        sums[t][v] = Format::MultiplyAdd(sums[t][v], loaded[v], x + t * tiling.x_stride + step);
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

// x in bfloat16, rows padded with a zero to whole pairs.
void RoundRows(const LinearArgs& args) {
  const int64_t cols = args.weight.cols;
  const int64_t padded = PaddedCols(DType::kBf16, cols);
  for (int64_t t = 0; t < args.token_count; ++t) {
    const float* from = args.x + t * cols;
    uint16_t* to = args.scratch + t * padded;
    int64_t i = 0;
    for (; i + kLanes <= cols; i += kLanes) StoreBf16(to + i, Load(from + i));
    for (; i < cols; ++i) to[i] = RoundToBf16(from[i]);
    for (; i < padded; ++i) to[i] = 0;
  }
}

}  // namespace

void Linear(const LinearArgs& args) {
  const int64_t cols = args.weight.cols;
  const int64_t panel_bytes = PanelBytes(args.weight.dtype, cols);
  switch (args.weight.dtype) {
    case DType::kF32:
      Run<F32Format>({args.x, cols, cols, panel_bytes, &args});
      return;
    case DType::kF16:
      Run<F16Format>({args.x, cols, cols, panel_bytes, &args});
      return;
    case DType::kBf16:
      RoundRows(args);
      Run<Bf16Format>({reinterpret_cast<const uint32_t*>(args.scratch), (cols + 1) / 2,
                       (cols + 1) / 2, panel_bytes, &args});
      return;
  }
}

}  // namespace penstock::engine::PENSTOCK_LEVEL
