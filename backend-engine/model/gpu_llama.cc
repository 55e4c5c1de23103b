#include "backend-engine/model/gpu_llama.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace penstock::engine {
namespace {

constexpr int64_t kAlign = 256;

// The first error of several calls, and no call after it.
class Chain {
 public:
  template <typename Call>
  Chain& Then(const Call& call) {
    if (error_ == cuda::kGpuOk) error_ = call();
    return *this;
  }
  cuda::GpuError error() const { return error_; }

 private:
  cuda::GpuError error_ = cuda::kGpuOk;
};

}  // namespace

int64_t PlaceGpuBuffers(const ModelConfig& config, const Shard& shard,
                        const GpuBufferSizes& sizes, std::byte* memory, GpuBuffers& buffers) {
  int64_t bytes = 0;
  const auto place = [&](auto*& pointer, int64_t count) {
    using Number = std::remove_reference_t<decltype(*pointer)>;
    if (memory != nullptr) pointer = reinterpret_cast<Number*>(memory + bytes);
    const int64_t size = count * static_cast<int64_t>(sizeof(Number));
    bytes += (size + kAlign - 1) / kAlign * kAlign;
  };
  const int64_t tokens = cuda::GemmTokens(static_cast<int32_t>(sizes.tokens));
  const int64_t rows = cuda::GemmTokens(static_cast<int32_t>(sizes.rows));
  const int64_t hidden = config.hidden_size;
  const int64_t attended = shard.heads.count * config.head_dim;
  const int64_t inner = shard.intermediate_padded;
  place(buffers.residual, tokens * hidden);
  place(buffers.normed, std::max(tokens, rows) * hidden);
  for (cuda::Bf16*& branch : buffers.branch) place(branch, tokens * hidden);
  place(buffers.qkv, tokens * shard.qkv_rows(config));
  place(buffers.attended, tokens * attended);
  place(buffers.gate_up, tokens * 2 * inner);
  place(buffers.gated, tokens * inner);
  place(buffers.picked, rows * hidden);
  place(buffers.logits, rows * shard.vocab_padded);
  place(buffers.partial, sizes.partials * attended);
  place(buffers.partial_stats, sizes.partials * shard.heads.count * 2);
  place(buffers.cosines, sizes.positions * config.head_dim / 2);
  place(buffers.sines, sizes.positions * config.head_dim / 2);
  return bytes;
}

GpuLlama::GpuLlama(const ModelConfig& config, const Shard& shard, const GpuWeights& weights,
                   std::span<const GpuKv> kv, const GpuBuffers& buffers, int32_t block_tokens,
                   cuda::Gemm& gemm, GpuComm& comm)
    : config_(config), shard_(shard), weights_(weights), kv_(kv), buffers_(buffers),
      block_tokens_(block_tokens), hidden_(static_cast<int32_t>(config.hidden_size)),
      heads_(static_cast<int32_t>(shard.heads.count)),
      kv_heads_(static_cast<int32_t>(shard.kv_heads.count)),
      head_dim_(static_cast<int32_t>(config.head_dim)),
      inner_(static_cast<int32_t>(shard.intermediate_padded)), gemm_(gemm), comm_(comm) {}

// Buffers alternate: 0 for the embedding and every MLP, 1 for every attention.
cuda::GpuError GpuLlama::Queue(const GpuStepShape& shape, const GpuStepMemory& step,
                               int32_t splits, cuda::Stream stream) {
  const auto layers = std::span(weights_.layers);
  Chain chain;
  chain.Then([&] {
    return cuda::Embed({step.tokens, shape.tokens, weights_.embeddings,
                        static_cast<int32_t>(shard_.vocab.first),
                        static_cast<int32_t>(shard_.vocab.count), hidden_, buffers_.branch[0]},
                       stream);
  });
  for (size_t i = 0; i < layers.size(); ++i) {
    chain.Then([&] { return SumAndNorm(0, i == 0, layers[i].input_norm, shape.tokens, stream); })
        .Then([&] { return Attention(layers[i], kv_[i], shape, step, splits, stream); })
        .Then([&] { return SumAndNorm(1, false, layers[i].mlp_norm, shape.tokens, stream); })
        .Then([&] { return Mlp(layers[i], shape.tokens, stream); });
  }
  return chain
      .Then([&] {
        return SumAndNorm(0, layers.empty(), weights_.final_norm, shape.tokens, stream);
      })
      .Then([&] { return Logits(shape, step, stream); })
      .error();
}

cuda::GpuError GpuLlama::Attention(const GpuLayer& layer, const GpuKv& kv,
                                   const GpuStepShape& shape, const GpuStepMemory& step,
                                   int32_t splits, cuda::Stream stream) {
  const cuda::AttentionCall call{
      .qkv = buffers_.qkv, .heads = heads_, .kv_heads = kv_heads_, .head_dim = head_dim_,
      .block_tokens = block_tokens_,
      .scale = 1.0f / std::sqrt(static_cast<float>(config_.head_dim)),
      .keys = kv.keys, .values = kv.values, .sequences = step.sequences,
      .block_table = step.block_table, .out = buffers_.attended, .decodes = step.decodes,
      .decode_count = shape.decodes, .splits = splits, .partial = buffers_.partial,
      .partial_stats = buffers_.partial_stats, .tiles = step.tiles, .tile_count = shape.tiles};
  return Chain()
      .Then([&] { return Project(QkvCall(layer, shape.tokens), stream); })
      .Then([&] {
        return cuda::RopeKvWrite({buffers_.qkv, shape.tokens, heads_, kv_heads_, head_dim_,
                                  block_tokens_, step.positions, step.slots, buffers_.cosines,
                                  buffers_.sines, kv.keys, kv.values},
                                 stream);
      })
      .Then([&] { return cuda::AttentionDecode(call, stream); })
      .Then([&] { return cuda::AttentionPrefill(call, stream); })
      .Then([&] { return Project(OutputCall(layer, shape.tokens), stream); })
      .error();
}

cuda::GpuError GpuLlama::Mlp(const GpuLayer& layer, int32_t tokens, cuda::Stream stream) {
  Chain chain;
  if (tokens <= cuda::kGemvTokensMax) {
    cuda::GemvCall call = GateUpCall(layer, tokens);
    call.y = buffers_.gated;
    chain.Then([&] { return cuda::GemvSiluMul(call, stream); });
  } else {
    chain.Then([&] { return gemm_.Run(GateUpCall(layer, tokens), stream); }).Then([&] {
      return cuda::SiluMul({buffers_.gate_up, tokens, inner_, buffers_.gated}, stream);
    });
  }
  return chain.Then([&] { return Project(DownCall(layer, tokens), stream); }).error();
}

cuda::GpuError GpuLlama::Logits(const GpuStepShape& shape, const GpuStepMemory& step,
                                cuda::Stream stream) {
  if (shape.rows == 0) return cuda::kGpuOk;
  Chain chain;
  const cuda::Bf16* x = buffers_.normed;
  if (shape.picks) {
    x = buffers_.picked;
    chain.Then([&] {
      return cuda::GatherRows(
          {buffers_.normed, step.logit_rows, shape.rows, hidden_, buffers_.picked}, stream);
    });
  }
  return chain.Then([&] { return Project(LogitsCall(x, shape.rows), stream); }).error();
}

cuda::GpuError GpuLlama::SumAndNorm(int buffer, bool starts, const float* weight, int32_t tokens,
                                    cuda::Stream stream) {
  return comm_.SumAndNorm(buffer,
                          {buffers_.branch[buffer], buffers_.residual, starts, weight, tokens,
                           hidden_, static_cast<float>(config_.rms_eps), buffers_.normed},
                          stream);
}

cuda::GpuError GpuLlama::Project(const cuda::GemvCall& call, cuda::Stream stream) {
  return call.token_count <= cuda::kGemvTokensMax ? cuda::Gemv(call, stream)
                                                  : gemm_.Run(call, stream);
}

bool GpuLlama::TuneLayers(int32_t tokens, int guesses, cuda::Stream stream, std::string& error) {
  constexpr size_t kLayersMax = 6;  // Their weights are more than a cache holds.
  if (tokens <= cuda::kGemvTokensMax || weights_.layers.empty()) return true;
  const auto layers = std::span(weights_.layers).first(std::min(weights_.layers.size(), kLayersMax));
  for (const auto call : {&GpuLlama::QkvCall, &GpuLlama::OutputCall, &GpuLlama::GateUpCall,
                          &GpuLlama::DownCall}) {
    std::vector<cuda::GemvCall> calls;
    for (const GpuLayer& layer : layers) calls.push_back((this->*call)(layer, tokens));
    if (!gemm_.Tune(calls, guesses, stream, error)) return false;
  }
  return true;
}

bool GpuLlama::TuneLogits(int32_t rows, int guesses, cuda::Stream stream, std::string& error) {
  if (rows <= cuda::kGemvTokensMax) return true;
  const cuda::GemvCall call = LogitsCall(buffers_.normed, rows);
  return gemm_.Tune({&call, 1}, guesses, stream, error);
}

cuda::GemvCall GpuLlama::QkvCall(const GpuLayer& layer, int32_t tokens) const {
  return {buffers_.normed, tokens, layer.qkv, layer.qkv_bias,
          static_cast<int32_t>(shard_.qkv_rows(config_)), hidden_, buffers_.qkv, nullptr};
}
cuda::GemvCall GpuLlama::OutputCall(const GpuLayer& layer, int32_t tokens) const {
  return {buffers_.attended, tokens, layer.output, layer.output_bias, hidden_,
          heads_ * head_dim_, buffers_.branch[1], nullptr};
}
cuda::GemvCall GpuLlama::GateUpCall(const GpuLayer& layer, int32_t tokens) const {
  return {buffers_.normed, tokens, layer.gate_up, layer.gate_up_bias, 2 * inner_, hidden_,
          buffers_.gate_up, nullptr};
}
cuda::GemvCall GpuLlama::DownCall(const GpuLayer& layer, int32_t tokens) const {
  return {buffers_.gated, tokens, layer.down, layer.down_bias, hidden_, inner_,
          buffers_.branch[0], nullptr};
}
cuda::GemvCall GpuLlama::LogitsCall(const cuda::Bf16* x, int32_t rows) const {
  return {x, rows, weights_.lm_head, nullptr, static_cast<int32_t>(shard_.vocab_padded), hidden_,
          nullptr, buffers_.logits};
}

}  // namespace penstock::engine
