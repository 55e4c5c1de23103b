// The attention kernels against the plain twin: groups of every size, contexts
// that end in the middle of blocks, tiles and splits, mixed steps.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "backend-engine/kernels/cuda/cuda_kernels.h"
#include "backend-engine/kernels/kernels.h"
#include "tests/gpu/gpu_array.h"
#include "tests/gpu/op_checks.h"

namespace penstock::engine {

struct AttentionShape {
  int32_t heads, kv_heads, dim, block_tokens, splits;
  std::vector<std::pair<int32_t, int32_t>> sequences;  // Tokens before this step, and in it.
};

// One step: sequences with their keys and values in blocks that lie in no order.
class AttentionCheck {
 public:
  AttentionCheck(Checks& checks, const AttentionShape& shape) : checks_(checks), shape_(shape) {
    int32_t blocks = 0;
    for (const auto& [before, count] : shape.sequences) {
      const int32_t length = before + count;
      gpu_sequences_.push_back({tokens_, count, before, blocks});
      tokens_ += count;
      blocks += (length + shape.block_tokens - 1) / shape.block_tokens;
    }
    block_count_ = blocks + 2;
    table_.resize(static_cast<size_t>(block_count_));
    std::iota(table_.begin(), table_.end(), 0);
    std::shuffle(table_.begin(), table_.end(), checks.random_);
    for (const cuda::GpuSequence& sequence : gpu_sequences_) {
      sequences_.push_back({sequence.first_token, sequence.token_count, sequence.start,
                            table_.data() + sequence.first_block});
    }
    const auto row = static_cast<size_t>((shape.heads + 2 * shape.kv_heads) * shape.dim);
    qkv_ = checks.Numbers(row * static_cast<size_t>(tokens_));
    const auto cache = static_cast<size_t>(block_count_) * static_cast<size_t>(
        shape.kv_heads * shape.block_tokens * shape.dim);
    keys_ = checks.Numbers(cache);
    values_ = checks.Numbers(cache);
    PoisonUnused();
  }

  void Run() {
    GpuArray<uint16_t> qkv(qkv_), keys(keys_), values(values_);
    const auto outputs = static_cast<size_t>(tokens_ * shape_.heads * shape_.dim);
    GpuArray<uint16_t> out(outputs);
    GpuArray<cuda::GpuSequence> sequences(gpu_sequences_);
    GpuArray<int32_t> table(table_);
    std::vector<int32_t> decode_list;
    std::vector<cuda::PrefillTile> tile_list;
    const int32_t group = shape_.heads / shape_.kv_heads;
    for (int32_t i = 0; i < static_cast<int32_t>(gpu_sequences_.size()); ++i) {
      const int32_t rows = gpu_sequences_[static_cast<size_t>(i)].token_count * group;
      if (gpu_sequences_[static_cast<size_t>(i)].token_count == 1) {
        decode_list.push_back(i);
        continue;
      }
      for (int32_t first = 0; first < rows; first += cuda::kPrefillRows) {
        tile_list.push_back({i, first});
      }
    }
    GpuArray<int32_t> decodes(decode_list);
    GpuArray<cuda::PrefillTile> tiles(tile_list);
    const auto parts = decode_list.size() * static_cast<size_t>(shape_.heads * shape_.splits);
    GpuArray<float> partial(parts * static_cast<size_t>(shape_.dim)), stats(parts * 2);
    const cuda::AttentionCall call{
        qkv.data(), shape_.heads, shape_.kv_heads, shape_.dim, shape_.block_tokens, Scale(),
        keys.data(), values.data(), sequences.data(), table.data(), out.data(), decodes.data(),
        static_cast<int32_t>(decode_list.size()), shape_.splits, partial.data(), stats.data(),
        tiles.data(), static_cast<int32_t>(tile_list.size())};
    Must(cuda::AttentionDecode(call, nullptr), "AttentionDecode");
    Must(cuda::AttentionPrefill(call, nullptr), "AttentionPrefill");
    // Weights are rounded to bf16 before the second product: 2^-9 of each.
    checks_.Compare(tile_list.empty() ? "attention decode" : "attention prefill", Text(),
                    Widened(out.Values()), Want(outputs), 0.25, 0x1p-7);
  }

 private:
  float Scale() const { return 1.0f / std::sqrt(static_cast<float>(shape_.dim)); }

  // Places after a sequence's last token, and blocks of nobody, hold NaN.
  void PoisonUnused() {
    std::vector<bool> used(static_cast<size_t>(block_count_ * shape_.block_tokens), false);
    for (const AttentionSequence& sequence : sequences_) {
      for (int32_t p = 0; p < sequence.start + sequence.token_count; ++p) {
        used[static_cast<size_t>(sequence.blocks[p / shape_.block_tokens] * shape_.block_tokens +
                                 p % shape_.block_tokens)] = true;
      }
    }
    const int32_t dim = shape_.dim, tokens = shape_.block_tokens;
    for (size_t i = 0; i < keys_.size(); ++i) {
      const auto token = static_cast<int32_t>(i) / dim % tokens;
      const auto block = static_cast<int32_t>(i) / (dim * tokens * shape_.kv_heads);
      if (!used[static_cast<size_t>(block * tokens + token)]) keys_[i] = values_[i] = 0xffff;
    }
  }

  std::vector<float> Want(size_t outputs) {
    std::vector<float> want(outputs);
    const auto qkv = Widened(qkv_);
    KernelsAt(CpuLevel::kReference)->paged_attention(
        {.qkv = qkv.data(), .heads = shape_.heads, .scale = Scale(),
         .kv = {reinterpret_cast<std::byte*>(keys_.data()),
                reinterpret_cast<std::byte*>(values_.data()), DType::kBf16, shape_.kv_heads,
                shape_.block_tokens, shape_.dim},
         .sequences = sequences_.data(),
         .sequence_count = static_cast<int64_t>(sequences_.size()), .out = want.data(),
         .scratch = nullptr});
    return want;
  }

  std::string Text() const {
    std::string text = std::to_string(shape_.heads) + "/" + std::to_string(shape_.kv_heads) +
                       " heads of " + std::to_string(shape_.dim) + ", blocks of " +
                       std::to_string(shape_.block_tokens) + ", " +
                       std::to_string(shape_.splits) + " splits:";
    for (const auto& [before, count] : shape_.sequences) {
      text += " " + std::to_string(before) + "+" + std::to_string(count);
    }
    return text;
  }

  Checks& checks_;
  const AttentionShape& shape_;
  int32_t tokens_ = 0, block_count_ = 0;
  std::vector<cuda::GpuSequence> gpu_sequences_;
  std::vector<AttentionSequence> sequences_;
  std::vector<int32_t> table_;
  std::vector<uint16_t> qkv_, keys_, values_;
};

void Checks::AttentionDecode() {
  std::vector<AttentionShape> shapes = {
      {4, 2, 64, 16, 1, {{0, 1}, {15, 1}, {16, 1}, {17, 1}}},
      {4, 2, 64, 16, 4, {{0, 1}, {70, 1}, {333, 1}}},
      {1, 1, 64, 1, 3, {{66, 1}}},
      {3, 1, 64, 32, 2, {{129, 1}, {5, 1}}},
      {8, 8, 128, 16, 2, {{40, 1}}},
      {7, 1, 128, 16, 3, {{150, 1}, {31, 1}}},
      {16, 2, 128, 8, 1, {{64, 1}}},
      {11, 1, 128, 16, 2, {{97, 1}}},  // Two chunks of a group.
      {2, 1, 64, 16, 128, {{150, 1}, {0, 1}}},  // More splits than keys, and than threads.
  };
  if (large_) {
    shapes.push_back({32, 8, 128, 16, 16, {{8000, 1}}});
    shapes.push_back({28, 4, 128, 16, 4, {{1023, 1}, {1024, 1}, {4097, 1}, {2, 1}, {511, 1}}});
  }
  for (const AttentionShape& shape : shapes) AttentionCheck(*this, shape).Run();
}

void Checks::AttentionPrefill() {
  std::vector<AttentionShape> shapes = {
      {2, 1, 64, 16, 1, {{0, 2}}},
      {4, 2, 64, 16, 1, {{0, 65}, {3, 7}}},
      {7, 1, 64, 32, 1, {{60, 20}, {0, 3}}},
      {1, 1, 128, 16, 1, {{0, 64}, {64, 2}}},
      {1, 1, 128, 16, 1, {{0, 130}}},
      {4, 2, 128, 8, 2, {{100, 30}, {77, 1}, {0, 33}}},  // A decode among them.
  };
  if (large_) {
    shapes.push_back({32, 8, 128, 16, 1, {{0, 700}}});
    shapes.push_back({28, 4, 128, 16, 8, {{1000, 130}, {900, 1}, {0, 257}}});
  }
  for (const AttentionShape& shape : shapes) AttentionCheck(*this, shape).Run();
}

}  // namespace penstock::engine
