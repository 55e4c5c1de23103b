// Every level of every operation against its plain twin, over shapes that do
// and do not fill vectors, panels and tiles. Outputs are poisoned with NaN, so
// that a number that was never written shows.
#include "backend-engine/kernels/kernels.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <memory>
#include <random>
#include <vector>

namespace penstock::engine {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

std::vector<float> Random(std::mt19937& random, int64_t count, float scale = 1.0f) {
  std::normal_distribution<float> normal(0.0f, scale);
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) value = normal(random);
  return values;
}

// A matrix that owns its bytes.
struct OwnedMatrix {
  OwnedMatrix(DType dtype, int64_t rows, int64_t cols, const std::vector<float>& values)
      : size(static_cast<size_t>((MatrixBytes(dtype, rows, cols) + 63) / 64 * 64)),
        bytes(static_cast<std::byte*>(std::aligned_alloc(64, size)), &std::free) {
    std::memset(bytes.get(), 0, size);
    matrix = {.dtype = dtype, .rows = rows, .cols = cols, .data = bytes.get()};
    for (int64_t row = 0; row < rows; ++row) {
      SetRow(matrix, row, reinterpret_cast<const std::byte*>(values.data() + row * cols),
             DType::kF32);
    }
  }
  size_t size;
  std::unique_ptr<std::byte, void (*)(void*)> bytes;
  Matrix matrix;
};

class KernelsAtLevel : public ::testing::TestWithParam<CpuLevel> {
 protected:
  void SetUp() override {
    kernels_ = KernelsAt(GetParam());
    if (kernels_ == nullptr) GTEST_SKIP() << "this machine lacks the instructions";
  }
  const Kernels* kernels_ = nullptr;
  const Kernels& plain_ = *KernelsAt(CpuLevel::kReference);
  std::mt19937 random_{20};
};

void ExpectNear(const std::vector<float>& got, const std::vector<float>& want, float tolerance,
                const char* what) {
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < got.size(); ++i) {
    ASSERT_NEAR(got[i], want[i], tolerance * (1.0f + std::fabs(want[i]))) << what << " at " << i;
  }
}

TEST_P(KernelsAtLevel, LinearIsTheMatrixProduct) {
  struct Shape {
    int64_t tokens, rows, cols;
  };
  for (const Shape shape : {Shape{1, 1, 1}, {1, 16, 2}, {1, 64, 256}, {2, 17, 3}, {3, 100, 33},
                            {5, 48, 7}, {6, 80, 64}, {7, 31, 129}, {13, 200, 96}, {32, 65, 31}}) {
    for (const DType dtype : {DType::kF32, DType::kBf16, DType::kF16}) {
      const OwnedMatrix weight(dtype, shape.rows, shape.cols,
                               Random(random_, shape.rows * shape.cols));
      const std::vector<float> x = Random(random_, shape.tokens * shape.cols);
      const std::vector<float> bias = Random(random_, shape.rows);
      std::vector<float> scratch(
          static_cast<size_t>(LinearScratch(shape.tokens, shape.cols)), kNan);
      for (const float* added : {bias.data(), static_cast<const float*>(nullptr)}) {
        std::vector<float> got(static_cast<size_t>(shape.tokens * shape.rows), kNan);
        std::vector<float> want = got;
        LinearArgs args{.x = x.data(), .token_count = shape.tokens, .weight = weight.matrix,
                        .bias = added, .y = got.data(), .scratch = scratch.data()};
        kernels_->linear(args);
        args.y = want.data();
        plain_.linear(args);
        ExpectNear(got, want, 2e-5f, NameOf(dtype));
      }
    }
  }
}

TEST_P(KernelsAtLevel, LinearGivesATokenTheSameBitsInAnyBatch) {
  const int64_t rows = 150, cols = 77, tokens = 23;
  for (const DType dtype : {DType::kF32, DType::kBf16, DType::kF16}) {
    const OwnedMatrix weight(dtype, rows, cols, Random(random_, rows * cols));
    const std::vector<float> x = Random(random_, tokens * cols);
    std::vector<float> scratch(static_cast<size_t>(LinearScratch(tokens, cols)));
    std::vector<float> together(static_cast<size_t>(tokens * rows), kNan);
    LinearArgs args{.x = x.data(), .token_count = tokens, .weight = weight.matrix,
                    .y = together.data(), .scratch = scratch.data()};
    kernels_->linear(args);
    std::vector<float> alone(together.size(), kNan);
    for (int64_t first = 0, count = 1; first < tokens; first += count, count = count % 5 + 1) {
      count = std::min(count, tokens - first);
      args.x = x.data() + first * cols;
      args.y = alone.data() + first * rows;
      args.token_count = count;
      kernels_->linear(args);
    }
    EXPECT_EQ(std::memcmp(alone.data(), together.data(), alone.size() * 4), 0) << NameOf(dtype);
  }
}

TEST_P(KernelsAtLevel, EmbedCopiesRowsAndLeavesOtherRanksRowsZero) {
  for (const DType dtype : {DType::kF32, DType::kBf16, DType::kF16}) {
    const int64_t rows = 21, cols = 35;
    const OwnedMatrix table(dtype, rows, cols, Random(random_, rows * cols));
    const std::vector<int32_t> tokens = {40, 60, 39, 41, 61, 0, 55};
    std::vector<float> got(tokens.size() * cols, kNan);
    std::vector<float> want = got;
    EmbedArgs args{.tokens = tokens.data(), .token_count = static_cast<int64_t>(tokens.size()),
                   .table = table.matrix, .first_row = 40, .out = got.data()};
    kernels_->embed(args);
    args.out = want.data();
    plain_.embed(args);
    EXPECT_EQ(got, want);
    EXPECT_EQ(got[2 * cols], 0.0f);
    EXPECT_EQ(got[4 * cols], 0.0f);
  }
}

TEST_P(KernelsAtLevel, RmsNormAddsThenNormalises) {
  for (const int64_t width : {1, 3, 16, 37, 256}) {
    for (const bool adds : {false, true}) {
      const int64_t tokens = 5;
      const std::vector<float> x = Random(random_, tokens * width);
      const std::vector<float> weight = Random(random_, width);
      std::vector<float> residual = Random(random_, tokens * width, 3.0f);
      std::vector<float> plain_residual = residual;
      std::vector<float> got(x.size(), kNan);
      std::vector<float> want = got;
      kernels_->rms_norm({adds ? x.data() : nullptr, residual.data(), weight.data(), tokens, width,
                          1e-5f, got.data()});
      plain_.rms_norm({adds ? x.data() : nullptr, plain_residual.data(), weight.data(), tokens,
                       width, 1e-5f, want.data()});
      ExpectNear(got, want, 2e-6f, "normalised");
      EXPECT_EQ(residual, plain_residual);
    }
  }
}

TEST_P(KernelsAtLevel, SiluMulGatesAndHoldsAtTheEdges) {
  for (const int64_t width : {1, 5, 16, 44, 176}) {
    std::vector<float> gate_up = Random(random_, 3 * 2 * width, 8.0f);
    gate_up[0] = -200.0f;
    gate_up[static_cast<size_t>(2 * width)] = 200.0f;
    std::vector<float> got(static_cast<size_t>(3 * width), kNan);
    std::vector<float> want = got;
    kernels_->silu_mul({gate_up.data(), 3, width, got.data()});
    plain_.silu_mul({gate_up.data(), 3, width, want.data()});
    ExpectNear(got, want, 2e-6f, "gated");
  }
}

TEST_P(KernelsAtLevel, AddAddsEveryElement) {
  for (const int64_t count : {1, 4, 15, 16, 33, 1000}) {
    const std::vector<float> x = Random(random_, count);
    std::vector<float> got = Random(random_, count);
    std::vector<float> want = got;
    kernels_->add(x.data(), count, got.data());
    plain_.add(x.data(), count, want.data());
    EXPECT_EQ(got, want);
  }
}

TEST_P(KernelsAtLevel, ArgMaxIsTheFirstOfTheLargest) {
  for (const int64_t count : {1, 2, 15, 16, 17, 2048, 2053}) {
    std::vector<float> row = Random(random_, count);
    const int64_t at = count / 2;
    row[static_cast<size_t>(at)] = 50.0f;
    row[static_cast<size_t>(count - 1)] = 50.0f;
    const ArgMaxResult result = kernels_->arg_max(row.data(), count);
    EXPECT_EQ(result.index, at);
    EXPECT_EQ(result.value, 50.0f);
    EXPECT_TRUE(result.finite);
  }
}

TEST_P(KernelsAtLevel, ArgMaxSeesOneNumberThatIsNotFinite) {
  for (const float bad : {kNan, std::numeric_limits<float>::infinity(),
                          -std::numeric_limits<float>::infinity()}) {
    for (const size_t at : {0u, 7u, 31u, 36u}) {
      std::vector<float> row = Random(random_, 37);
      row[at] = bad;
      EXPECT_FALSE(kernels_->arg_max(row.data(), 37).finite) << bad << " at " << at;
    }
  }
}

TEST_P(KernelsAtLevel, ExpSumIsTheSumOfExponentials) {
  for (const int64_t count : {1, 7, 16, 100, 5000}) {
    const std::vector<float> row = Random(random_, count, 20.0f);
    const float max = *std::max_element(row.begin(), row.end());
    std::vector<float> got(row.size(), kNan);
    std::vector<float> want = got;
    const double sum = kernels_->exp_sum(row.data(), count, max, 0.7f, got.data());
    const double plain_sum = plain_.exp_sum(row.data(), count, max, 0.7f, want.data());
    EXPECT_NEAR(sum, plain_sum, 1e-5 * plain_sum);
    for (size_t i = 0; i < got.size(); ++i) ASSERT_NEAR(got[i], want[i], 3e-5f * want[i] + 1e-37f);
    EXPECT_EQ(kernels_->exp_sum(row.data(), count, max, 0.7f, nullptr), sum);
  }
}

// A paged cache filled through rope_kv_write, then read by paged_attention.
struct AttentionCase {
  int32_t heads, kv_heads, head_dim, block_tokens;
  DType dtype;
};

struct AttentionRun {
  std::vector<float> out;
  std::vector<float> qkv;  // After the turn.
  std::vector<std::byte> keys, values;
};

// Three sequences: a prompt chunk from nothing, a chunk onto a past, a decode step.
constexpr struct {
  int32_t past, now;
} kSequences[] = {{0, 19}, {13, 9}, {37, 1}};

AttentionRun RunAttention(const Kernels& kernels, const AttentionCase& shape, int32_t chunk) {
  std::mt19937 random(99);
  const int64_t row = (shape.heads + 2 * shape.kv_heads) * shape.head_dim;
  const int32_t blocks_each = (64 + shape.block_tokens - 1) / shape.block_tokens;
  const int64_t cache = int64_t{3} * blocks_each * shape.block_tokens * shape.kv_heads *
                        shape.head_dim * static_cast<int64_t>(SizeOf(shape.dtype));
  AttentionRun run;
  run.keys.assign(static_cast<size_t>(cache), std::byte{0xff});  // NaN where never written.
  run.values = run.keys;
  const KvLayer kv{run.keys.data(), run.values.data(), shape.dtype,
                   shape.kv_heads,  shape.block_tokens, shape.head_dim};
  const std::vector<float> cosines = Random(random, 64 * shape.head_dim / 2);
  const std::vector<float> sines = Random(random, 64 * shape.head_dim / 2);
  std::vector<float> scratch(
      static_cast<size_t>(AttentionScratch(shape.head_dim, shape.block_tokens)), kNan);
  for (int32_t s = 0; s < 3; ++s) {
    // Blocks of the sequences are interleaved and in falling order.
    std::vector<int32_t> blocks;
    for (int32_t b = blocks_each - 1; b >= 0; --b) blocks.push_back(b * 3 + s);
    const int32_t total = kSequences[s].past + kSequences[s].now;
    std::vector<float> qkv = Random(random, total * row);
    std::vector<int32_t> positions;
    std::vector<int64_t> slots;
    for (int32_t p = 0; p < total; ++p) {
      positions.push_back(p);
      slots.push_back(int64_t{blocks[static_cast<size_t>(p / shape.block_tokens)]} *
                          shape.block_tokens +
                      p % shape.block_tokens);
    }
    std::vector<float> out(static_cast<size_t>(total * shape.heads * shape.head_dim), kNan);
    for (int32_t first = 0; first < total; first += chunk) {
      const int32_t count = std::min(chunk, total - first);
      kernels.rope_kv_write({qkv.data() + first * row, count, shape.heads,
                             positions.data() + first, slots.data() + first, cosines.data(),
                             sines.data(), kv});
      const AttentionSequence sequence{0, count, first, blocks.data()};
      kernels.paged_attention({qkv.data() + first * row, shape.heads,
                               1.0f / std::sqrt(static_cast<float>(shape.head_dim)), kv, &sequence,
                               1, out.data() + int64_t{first} * shape.heads * shape.head_dim,
                               scratch.data()});
    }
    run.out.insert(run.out.end(), out.begin(), out.end());
    run.qkv.insert(run.qkv.end(), qkv.begin(), qkv.end());
  }
  return run;
}

constexpr AttentionCase kAttentionCases[] = {
    {4, 2, 64, 16, DType::kF32}, {4, 2, 64, 16, DType::kBf16}, {1, 1, 6, 4, DType::kF32},
    {7, 1, 34, 5, DType::kBf16}, {6, 3, 128, 32, DType::kF32},  {14, 2, 64, 1, DType::kBf16}};

TEST_P(KernelsAtLevel, RopeAndAttentionMatchThePlainTwins) {
  for (const AttentionCase& shape : kAttentionCases) {
    const AttentionRun got = RunAttention(*kernels_, shape, 64);
    const AttentionRun want = RunAttention(plain_, shape, 64);
    // A bfloat16 cache may round a turned key to the other neighbour.
    const float tolerance = shape.dtype == DType::kBf16 ? 1e-2f : 2e-5f;
    ExpectNear(got.qkv, want.qkv, 1e-5f, "turned");
    ExpectNear(got.out, want.out, tolerance, "attended");
  }
}

TEST_P(KernelsAtLevel, AttentionGivesTheSameBitsForAnyChunking) {
  for (const AttentionCase& shape : kAttentionCases) {
    const AttentionRun whole = RunAttention(*kernels_, shape, 64);
    for (const int32_t chunk : {1, 3, 16}) {
      const AttentionRun chunked = RunAttention(*kernels_, shape, chunk);
      ASSERT_EQ(std::memcmp(whole.out.data(), chunked.out.data(), whole.out.size() * 4), 0)
          << "chunks of " << chunk << ", head_dim " << shape.head_dim;
    }
  }
}

TEST_P(KernelsAtLevel, AttentionOverSeveralSequencesIsEachOnItsOwn) {
  const int32_t heads = 4, kv_heads = 2, dim = 16, block_tokens = 4;
  const int64_t row = (heads + 2 * kv_heads) * dim;
  std::vector<float> keys = Random(random_, 8 * kv_heads * block_tokens * dim);
  std::vector<float> values = Random(random_, static_cast<int64_t>(keys.size()));
  const KvLayer kv{reinterpret_cast<std::byte*>(keys.data()),
                   reinterpret_cast<std::byte*>(values.data()), DType::kF32, kv_heads,
                   block_tokens, dim};
  const std::vector<float> qkv = Random(random_, 6 * row);
  const std::vector<int32_t> blocks[2] = {{5, 1, 7}, {0, 3}};
  const AttentionSequence sequences[2] = {{0, 5, 4, blocks[0].data()}, {5, 1, 6, blocks[1].data()}};
  std::vector<float> scratch(static_cast<size_t>(AttentionScratch(dim, block_tokens)), kNan);
  std::vector<float> together(static_cast<size_t>(6 * heads * dim), kNan);
  std::vector<float> alone = together;
  PagedAttentionArgs args{qkv.data(), heads, 0.25f, kv, sequences, 2, together.data(),
                          scratch.data()};
  kernels_->paged_attention(args);
  args.sequence_count = 1;
  args.out = alone.data();
  for (int s = 0; s < 2; ++s) {
    args.sequences = &sequences[s];
    kernels_->paged_attention(args);
  }
  EXPECT_EQ(together, alone);
}

std::string LevelName(const ::testing::TestParamInfo<CpuLevel>& info) {
  constexpr const char* kNames[] = {"Reference", "Baseline", "Avx2", "Avx512", "Avx512Bf16"};
  return kNames[static_cast<int>(info.param)];
}
INSTANTIATE_TEST_SUITE_P(Levels, KernelsAtLevel, ::testing::ValuesIn(kCpuLevels), LevelName);

}  // namespace
}  // namespace penstock::engine
