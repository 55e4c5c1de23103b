#include "backend-engine/model/gpu_weights.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "backend-engine/kernels/matrix.h"
#include "backend-engine/model/weight_plan.h"

namespace penstock::engine {
namespace {

constexpr int64_t kAlign = 256;
constexpr int64_t kStagingBytes = int64_t{16} << 20;
constexpr int64_t kVector = 8;  // Numbers that a kernel reads at once.

int64_t BytesOf(const WeightTarget& target) {
  const int64_t number = IsNorm(target.role) ? 4 : 2;
  return (target.rows * target.cols * number + kAlign - 1) / kAlign * kAlign;
}

void Point(const WeightTarget& target, const std::byte* at, GpuWeights& weights) {
  const auto* halves = reinterpret_cast<const cuda::Bf16*>(at);
  const auto* floats = reinterpret_cast<const float*>(at);
  GpuLayer* layer =
      weights.layers.empty() ? nullptr : &weights.layers[static_cast<size_t>(target.layer)];
  switch (target.role) {
    case WeightRole::kEmbeddings: weights.embeddings = halves; break;
    case WeightRole::kLmHead: weights.lm_head = halves; break;
    case WeightRole::kFinalNorm: weights.final_norm = floats; break;
    case WeightRole::kInputNorm: layer->input_norm = floats; break;
    case WeightRole::kQkv: layer->qkv = halves; break;
    case WeightRole::kQkvBias: layer->qkv_bias = halves; break;
    case WeightRole::kOutput: layer->output = halves; break;
    case WeightRole::kOutputBias: layer->output_bias = halves; break;
    case WeightRole::kMlpNorm: layer->mlp_norm = floats; break;
    case WeightRole::kGateUp: layer->gate_up = halves; break;
    case WeightRole::kGateUpBias: layer->gate_up_bias = halves; break;
    case WeightRole::kDown: layer->down = halves; break;
    case WeightRole::kDownBias: layer->down_bias = halves; break;
  }
}

// Two pinned buffers on the way to the GPU: one is filled while the other is copied.
class Staging {
 public:
  explicit Staging(cuda::Stream stream) : stream_(stream) {}
  ~Staging() {
    (void)cuda::Synchronize(stream_);  // Copies may be under way, where one has failed.
    for (Half& half : halves_) {
      if (half.event != nullptr) cuda::DestroyEvent(half.event);
      if (half.memory != nullptr) cuda::FreePinned(half.memory);
    }
  }

  cuda::GpuError Start() {
    for (Half& half : halves_) {
      if (const auto error = cuda::MakeEvent(half.event); error != cuda::kGpuOk) return error;
      if (const auto error = cuda::AllocatePinned(kStagingBytes, &half.memory);
          error != cuda::kGpuOk) {
        return error;
      }
    }
    return cuda::kGpuOk;
  }

  // Memory for at most kStagingBytes, once what it held before is copied.
  cuda::GpuError Next(std::byte*& memory) {
    now_ = 1 - now_;
    Half& half = halves_[now_];
    memory = static_cast<std::byte*>(half.memory);
    for (bool done = !half.used; !done;) {
      if (const auto error = cuda::Query(half.event, done); error != cuda::kGpuOk) return error;
    }
    half.used = true;
    return cuda::kGpuOk;
  }

  // Copies the front of the memory that Next() gave.
  cuda::GpuError Send(std::byte* to, int64_t bytes) {
    const auto error = cuda::CopyToGpu(to, halves_[now_].memory, bytes, stream_);
    return error != cuda::kGpuOk ? error : cuda::Record(halves_[now_].event, stream_);
  }

 private:
  struct Half {
    void* memory = nullptr;
    cuda::Event event = nullptr;
    bool used = false;
  };
  cuda::Stream stream_;
  std::array<Half, 2> halves_;
  size_t now_ = 0;
};

// `count` numbers of any format as bf16 or fp32.
void Convert(const std::byte* from, DType dtype, int64_t count, bool wide, std::byte* to,
             std::vector<float>& scratch) {
  if (wide) {
    ToFloat(from, dtype, count, reinterpret_cast<float*>(to));
  } else if (dtype == DType::kBf16) {
    std::memcpy(to, from, static_cast<size_t>(count * 2));
  } else {
    scratch.resize(static_cast<size_t>(count));
    ToFloat(from, dtype, count, scratch.data());
    auto* halves = reinterpret_cast<uint16_t*>(to);
    for (int64_t i = 0; i < count; ++i) halves[i] = Bf16FromFloat(scratch[static_cast<size_t>(i)]);
  }
}

// Sends a part's rows, as many at once as the staging holds.
cuda::GpuError CopyPart(const WeightPart& part, const WeightTarget& target, std::byte* to,
                        Staging& staging, std::vector<float>& scratch) {
  const auto size = static_cast<int64_t>(SizeOf(part.view.dtype));
  const bool wide = IsNorm(target.role);
  const int64_t row_bytes = target.cols * (wide ? 4 : 2);
  const int64_t stride = (part.shape.size() == 2 ? part.shape[1] : 1) * size;
  const int64_t rows_at_once = std::max<int64_t>(kStagingBytes / row_bytes, 1);
  const bool whole_rows = part.cols.count == target.cols && stride == target.cols * size;
  for (int64_t row = 0; row < part.rows.count; row += rows_at_once) {
    const int64_t rows = std::min(rows_at_once, part.rows.count - row);
    std::byte* memory = nullptr;
    if (const auto error = staging.Next(memory); error != cuda::kGpuOk) return error;
    const std::byte* from = part.view.bytes.data() + (part.rows.first + row) * stride +
                            part.cols.first * size;
    if (whole_rows) {
      Convert(from, part.view.dtype, rows * target.cols, wide, memory, scratch);
    } else {
      std::memset(memory, 0, static_cast<size_t>(rows * row_bytes));
      for (int64_t i = 0; i < rows; ++i) {
        Convert(from + i * stride, part.view.dtype, part.cols.count, wide, memory + i * row_bytes,
                scratch);
      }
    }
    const auto error = staging.Send(to + (part.at + row) * row_bytes, rows * row_bytes);
    if (error != cuda::kGpuOk) return error;
  }
  return cuda::kGpuOk;
}

}  // namespace

bool MakeGpuShard(const ModelConfig& config, int rank, int size, Shard& shard,
                  std::string& error) {
  if (!MakeShard(config, rank, size, shard, error, kVector)) return false;
  const auto refuse = [&error](const char* what, int64_t value, const char* allowed) {
    error = std::string(what) + " is " + std::to_string(value) + "; the GPU's kernels take " +
            allowed + "; --device cpu takes any";
    return false;
  };
  if (!cuda::AttentionTakes(static_cast<int32_t>(config.head_dim))) {
    return refuse("head_dim", config.head_dim, "64 and 128");
  }
  if (config.hidden_size % kVector != 0 || config.hidden_size > cuda::kRmsNormWidthMax) {
    return refuse("hidden_size", config.hidden_size, "multiples of 8 up to 32768");
  }
  if (config.vocab_size >= 1 << 19) return refuse("vocab_size", config.vocab_size, "up to 524287");
  return true;
}

int64_t GpuWeightBytes(const ModelConfig& config, const Shard& shard) {
  int64_t bytes = 0;
  for (const WeightTarget& target : PlanWeights(config, shard).targets) bytes += BytesOf(target);
  return bytes;
}

bool LoadGpuWeights(const ModelConfig& config, const Shard& shard, const TensorSource& source,
                    std::byte* memory, cuda::Stream stream, const LoadProgress& progress,
                    GpuWeights& weights, std::string& error) {
  WeightPlan plan = PlanWeights(config, shard);
  if (!FindTensors(source, plan, error)) return false;
  weights.layers.resize(static_cast<size_t>(config.layer_count));
  std::vector<std::byte*> places;
  int64_t bytes = 0;
  for (const WeightTarget& target : plan.targets) {
    places.push_back(memory + bytes);
    Point(target, places.back(), weights);
    bytes += BytesOf(target);
  }
  if (config.tied_embeddings) weights.lm_head = weights.embeddings;

  int64_t done = 0;
  int64_t total = 0;
  for (const WeightPart& part : plan.parts) total += SourceBytes(part);
  Staging staging(stream);
  std::vector<float> scratch;
  cuda::GpuError failed = staging.Start();
  if (failed == cuda::kGpuOk) failed = cuda::FillBytes(memory, 0, bytes, stream);
  for (const WeightPart& part : plan.parts) {
    if (failed != cuda::kGpuOk) break;
    const auto target = static_cast<size_t>(part.target);
    failed = CopyPart(part, plan.targets[target], places[target], staging, scratch);
    done += SourceBytes(part);
    if (progress) progress(done, total);
  }
  if (failed == cuda::kGpuOk) failed = cuda::Synchronize(stream);
  if (failed != cuda::kGpuOk) error = "copying the weights: " + cuda::ErrorText(failed);
  return failed == cuda::kGpuOk;
}

}  // namespace penstock::engine
