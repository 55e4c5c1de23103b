#include "backend-engine/model/gpu_weights.h"

#include <gtest/gtest.h>

#include "backend-engine/kernels/cuda/emulated/recording.h"
#include "backend-engine/model/gpu_llama.h"
#include "tests/backend-engine/model/random_model.h"

namespace penstock::engine {
namespace {

ModelConfig GpuConfig() {
  ModelConfig config = SmallConfig();
  config.hidden_size = 56;
  config.head_dim = 64;
  return config;
}

// The rank's weights on the emulated GPU.
struct Loaded {
  Loaded(const RandomModel& model, int rank, int size) {
    std::string error;
    EXPECT_TRUE(MakeGpuShard(model.config(), rank, size, shard, error)) << error;
    void* at = nullptr;
    EXPECT_EQ(cuda::Allocate(GpuWeightBytes(model.config(), shard), &at), cuda::kGpuOk);
    memory = at;
    cuda::Stream stream = nullptr;
    EXPECT_EQ(cuda::MakeStream(stream), cuda::kGpuOk);
    EXPECT_TRUE(LoadGpuWeights(model.config(), shard, model.source(),
                               static_cast<std::byte*>(memory), stream, {}, weights, error))
        << error;
    cuda::DestroyStream(stream);
  }
  ~Loaded() { cuda::Free(memory); }
  Shard shard;
  GpuWeights weights;
  void* memory = nullptr;
};

TEST(GpuWeights, EachRankHasItsRowsAndColumnsWhateverTheStoredFormat) {
  for (const DType dtype : {DType::kBf16, DType::kF16, DType::kF32}) {
    const RandomModel model(GpuConfig(), dtype);
    const auto q = model.Numbers("model.layers.1.self_attn.q_proj.weight");
    const auto v = model.Numbers("model.layers.1.self_attn.v_proj.weight");
    const auto up = model.Numbers("model.layers.1.mlp.up_proj.weight");
    const auto down = model.Numbers("model.layers.1.mlp.down_proj.weight");
    const auto bias = model.Numbers("model.layers.1.self_attn.k_proj.bias");
    const auto norm = model.Numbers("model.layers.1.input_layernorm.weight");
    for (int rank = 0; rank < 2; ++rank) {
      const Loaded loaded(model, rank, 2);
      const Shard& shard = loaded.shard;
      const GpuLayer& layer = loaded.weights.layers[1];
      const auto same = [](cuda::Bf16 bits, float number) {
        return bits == Bf16FromFloat(number);
      };
      const int64_t q_rows = 2 * 64, kv_rows = 64, hidden = 56;
      for (int64_t i = 0; i < hidden; ++i) {
        ASSERT_TRUE(same(layer.qkv[5 * hidden + i], q[(rank * q_rows + 5) * hidden + i]));
        ASSERT_TRUE(same(layer.qkv[(q_rows + kv_rows + 3) * hidden + i],
                         v[(rank * kv_rows + 3) * hidden + i]));
        ASSERT_EQ(layer.input_norm[i], norm[i]);
      }
      // 75 columns in parts of 40, and what is missing is zero.
      EXPECT_EQ(shard.intermediate_padded, 40);
      for (int64_t i = 0; i < 40; ++i) {
        const int64_t inner = rank * 40 + i;
        for (int64_t h = 0; h < hidden; ++h) {
          ASSERT_TRUE(same(layer.down[h * 40 + i], inner < 75 ? down[h * 75 + inner] : 0.0f));
          ASSERT_TRUE(same(layer.gate_up[(40 + i) * hidden + h],
                           inner < 75 ? up[inner * hidden + h] : 0.0f));
        }
      }
      for (int64_t i = 0; i < kv_rows; ++i) {
        ASSERT_TRUE(same(layer.qkv_bias[q_rows + i], bias[rank * kv_rows + i]));
      }
      EXPECT_EQ(loaded.weights.lm_head, loaded.weights.embeddings);
      EXPECT_EQ(layer.output_bias, nullptr);
    }
  }
}

TEST(GpuWeights, ShapesThatTheKernelsDoNotTakeAreRefusedByName) {
  Shard shard;
  std::string error;
  EXPECT_FALSE(MakeGpuShard(SmallConfig(), 0, 1, shard, error));
  EXPECT_EQ(error, "head_dim is 10; the GPU's kernels take 64 and 128; --device cpu takes any");
  ModelConfig config = GpuConfig();
  config.hidden_size = 52;
  EXPECT_FALSE(MakeGpuShard(config, 0, 1, shard, error));
  EXPECT_EQ(error.substr(0, 17), "hidden_size is 52");
}

TEST(GpuLlama, BuffersTakeWhatWasCountedAndDoNotOverlap) {
  Shard shard;
  std::string error;
  const ModelConfig config = GpuConfig();
  ASSERT_TRUE(MakeGpuShard(config, 0, 1, shard, error));
  const GpuBufferSizes sizes{.tokens = 65, .rows = 5, .partials = 9, .positions = 96};
  GpuBuffers buffers;
  const int64_t bytes = PlaceGpuBuffers(config, shard, sizes, nullptr, buffers);
  EXPECT_EQ(buffers.residual, nullptr);
  std::vector<std::byte> memory(static_cast<size_t>(bytes) + 256);
  std::byte* start = memory.data() + (256 - reinterpret_cast<uintptr_t>(memory.data()) % 256) % 256;
  EXPECT_EQ(PlaceGpuBuffers(config, shard, sizes, start, buffers), bytes);
  // Products of 65 tokens write GemmTokens(65) rows.
  const int64_t rows = cuda::GemmTokens(65);
  EXPECT_LE(reinterpret_cast<std::byte*>(buffers.residual + rows * 56),
            reinterpret_cast<std::byte*>(buffers.normed));
  EXPECT_LE(buffers.branch[0] + rows * 56, buffers.branch[1]);
  EXPECT_LE(buffers.branch[1] + rows * 56, buffers.qkv);
  EXPECT_LE(reinterpret_cast<std::byte*>(buffers.sines + 96 * 32), start + bytes);
}

TEST(GemmTokens, RoundUpByLittleAndNeverShrink) {
  int32_t before = 0;
  for (int32_t tokens = 1; tokens < 9000; ++tokens) {
    const int32_t rounded = cuda::GemmTokens(tokens);
    ASSERT_GE(rounded, tokens);
    ASSERT_GE(rounded, before);
    ASSERT_LE(rounded, std::max(tokens + 8, tokens + tokens / 8));
    ASSERT_EQ(cuda::GemmTokens(rounded), rounded);
    before = rounded;
  }
}

}  // namespace
}  // namespace penstock::engine
