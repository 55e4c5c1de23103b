#include "backend-engine/model/gpu_step.h"

#include <algorithm>
#include <cstring>

namespace penstock::engine {
namespace {

constexpr int64_t kAlign = 256;
constexpr int64_t kBiasesOfSequence = 1024;  // The API allows no more.
enum Part { kTable = 10, kBiases = 11, kHistory = 12, kMasks = 13 };  // Those of which a step uses some.

template <typename T>
void Put(const std::vector<T>& from, T* to) {
  if (!from.empty()) std::memcpy(to, from.data(), from.size() * sizeof(T));
}

}  // namespace

GpuStepLayout::GpuStepLayout(const GpuStepLimits& limits) : limits_(limits) {
  const StepLimits& step = limits.step;
  const int64_t tokens = std::max(step.tokens, step.sequences);
  tiles_max_ = (tokens * limits.group + cuda::kPrefillRows - 1) / cuda::kPrefillRows +
               step.sequences;
  biases_max_ = kBiasesOfSequence * step.sequences;
  // What a running sequence knows is in the cache, but for its last token.
  history_max_ = int64_t{step.block_count} * step.block_tokens + step.sequences;
  const int64_t sizes[] = {tokens * 4,
                           tokens * 4,
                           tokens * 8,
                           int64_t{step.sequences} * static_cast<int64_t>(sizeof(cuda::GpuSequence)),
                           int64_t{step.sequences} * 4,
                           tiles_max_ * static_cast<int64_t>(sizeof(cuda::PrefillTile)),
                           int64_t{std::max(limits.rows, step.sequences)} * 4,
                           int64_t{step.sequences} * static_cast<int64_t>(sizeof(cuda::SampleRow)),
                           int64_t{step.sequences} * static_cast<int64_t>(sizeof(cuda::TokenPlace)),
                           int64_t{step.sequences} * static_cast<int64_t>(sizeof(cuda::TokenPlace)),
                           (int64_t{step.block_count} + 1) * 4,
                           biases_max_ * static_cast<int64_t>(sizeof(cuda::TokenBias)),
                           history_max_ * 4,
                           int64_t{step.sequences} * cuda::MaskWords(step.vocab) * 4};
  static_assert(std::size(sizes) == std::size(decltype(at_){}));
  for (size_t i = 0; i < std::size(sizes); ++i) {
    at_[i] = bytes_;
    bytes_ += (sizes[i] + kAlign - 1) / kAlign * kAlign;
  }
}

GpuStepMemory GpuStepLayout::At(std::byte* memory) const {
  return {reinterpret_cast<int32_t*>(memory + at_[0]),
          reinterpret_cast<int32_t*>(memory + at_[1]),
          reinterpret_cast<int64_t*>(memory + at_[2]),
          reinterpret_cast<cuda::GpuSequence*>(memory + at_[3]),
          reinterpret_cast<int32_t*>(memory + at_[4]),
          reinterpret_cast<cuda::PrefillTile*>(memory + at_[5]),
          reinterpret_cast<int32_t*>(memory + at_[6]),
          reinterpret_cast<cuda::SampleRow*>(memory + at_[7]),
          reinterpret_cast<cuda::TokenPlace*>(memory + at_[8]),
          reinterpret_cast<cuda::TokenPlace*>(memory + at_[9]),
          reinterpret_cast<int32_t*>(memory + at_[kTable]),
          reinterpret_cast<cuda::TokenBias*>(memory + at_[kBiases]),
          reinterpret_cast<int32_t*>(memory + at_[kHistory]),
          reinterpret_cast<uint32_t*>(memory + at_[kMasks])};
}

GpuStepShape GpuStepLayout::Pack(const StepInput& input, const GpuSampling& sampling,
                                 int32_t bucket, std::byte* memory) const {
  GpuStepMemory to = At(memory);
  GpuStepShape shape;
  shape.tokens = static_cast<int32_t>(input.tokens.size());
  shape.rows = static_cast<int32_t>(input.logit_rows.size());
  shape.sequences = static_cast<int32_t>(input.sequences.size());
  shape.table_entries = static_cast<int64_t>(input.block_table.size());
  shape.bias_entries = static_cast<int64_t>(sampling.biases().size());
  shape.history_entries = static_cast<int64_t>(sampling.history().size());
  for (const AwaitedToken& awaited : input.awaited) {
    to.awaited[shape.awaited++] = {awaited.token, awaited.sample};
    shape.awaited_rows = std::max(shape.awaited_rows, awaited.sample + 1);
  }
  shape.awaited_history = static_cast<int32_t>(sampling.awaited().size());
  Put(sampling.awaited(), to.awaited_history);
  Put(input.tokens, to.tokens);
  Put(input.positions, to.positions);
  Put(input.slots, to.slots);
  Put(input.block_table, to.block_table);
  Put(input.logit_rows, to.logit_rows);
  Put(sampling.rows(), to.sample_rows);
  Put(sampling.biases(), to.biases);
  Put(sampling.history(), to.history);
  shape.mask_words = static_cast<int64_t>(sampling.masks().size());
  Put(sampling.masks(), to.masks);
  shape.picks = shape.rows != shape.tokens;
  for (size_t i = 0; i < input.sequences.size(); ++i) {
    const AttentionSequence& sequence = input.sequences[i];
    const auto index = static_cast<int32_t>(i);
    to.sequences[i] = {sequence.first_token, sequence.token_count, sequence.start,
                       static_cast<int32_t>(sequence.blocks - input.block_table.data())};
    if (sequence.token_count == 1) {
      to.decodes[shape.decodes++] = index;
      continue;
    }
    // The last rows first: they have the most keys to look at.
    const int32_t rows = sequence.token_count * limits_.group;
    for (int32_t first = (rows - 1) / cuda::kPrefillRows * cuda::kPrefillRows; first >= 0;
         first -= cuda::kPrefillRows) {
      to.tiles[shape.tiles++] = {index, first};
    }
  }
  if (bucket > 0) {
    shape.bucket = bucket;
    Pad(shape.tokens, shape, to);
  }
  return shape;
}

void GpuStepLayout::Pad(int32_t first, GpuStepShape& shape, GpuStepMemory& to) const {
  const auto entry = static_cast<int32_t>(shape.table_entries++);
  to.block_table[entry] = limits_.step.block_count;
  for (int32_t i = first; i < shape.bucket; ++i) {
    to.tokens[i] = 0;
    to.positions[i] = 0;
    to.slots[i] = int64_t{limits_.step.block_count} * limits_.step.block_tokens;
    to.sequences[i] = {i, 1, 0, entry};
    to.decodes[i] = i;
    to.logit_rows[i] = i;
  }
  shape.tokens = shape.rows = shape.sequences = shape.decodes = shape.bucket;
}

cuda::GpuError GpuStepLayout::Copy(const GpuStepShape& shape, const std::byte* host,
                                   std::byte* gpu, cuda::Stream stream) const {
  cuda::GpuError error = cuda::CopyToGpu(gpu, host, at_[kTable], stream);
  const auto copy = [&](Part part, int64_t bytes) {
    if (error != cuda::kGpuOk || bytes == 0) return;
    error = cuda::CopyToGpu(gpu + at_[part], host + at_[part], bytes, stream);
  };
  copy(kTable, shape.table_entries * 4);
  copy(kBiases, shape.bias_entries * static_cast<int64_t>(sizeof(cuda::TokenBias)));
  copy(kHistory, shape.history_entries * 4);
  copy(kMasks, shape.mask_words * 4);
  return error;
}

bool IsDecodeStep(const StepInput& input) {
  return !input.sequences.empty() && input.tokens.size() == input.sequences.size() &&
         input.logit_rows.size() == input.tokens.size();
}

}  // namespace penstock::engine
