// A checkpoint that was never on a disk: every tensor that a configuration
// asks for, with random numbers from a seed and the tensor's name.
#pragma once

#include <cstring>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "backend-engine/model/model_config.h"
#include "backend-engine/model/tensor_view.h"

namespace penstock::engine {

class RandomModel {
 public:
  // `scale` is large enough by default that errors show in the logits.
  explicit RandomModel(ModelConfig config, DType dtype = DType::kBf16, float scale = 0.3f)
      : config_(std::move(config)), dtype_(dtype), scale_(scale) {
    const ModelConfig& c = config_;
    Make("model.embed_tokens.weight", {c.vocab_size, c.hidden_size});
    Make("model.norm.weight", {c.hidden_size});
    if (!c.tied_embeddings) Make("lm_head.weight", {c.vocab_size, c.hidden_size});
    for (int64_t i = 0; i < c.layer_count; ++i) MakeLayer(i);
  }

  const ModelConfig& config() const { return config_; }

  TensorSource source() const {
    return [this](std::string_view name) -> std::optional<TensorView> {
      const auto found = tensors_.find(std::string(name));
      if (found == tensors_.end()) return std::nullopt;
      return TensorView{.dtype = dtype_, .shape = found->second.shape,
                        .bytes = std::as_bytes(std::span(found->second.bytes))};
    };
  }

  // The numbers of a tensor, as the model has them.
  std::vector<float> Numbers(const std::string& name) const {
    const Tensor& tensor = tensors_.at(name);
    std::vector<float> numbers(tensor.bytes.size() / SizeOf(dtype_));
    for (size_t i = 0; i < numbers.size(); ++i) {
      if (dtype_ == DType::kF32) {
        std::memcpy(&numbers[i], tensor.bytes.data() + i * 4, 4);
      } else {
        uint16_t bits;
        std::memcpy(&bits, tensor.bytes.data() + i * 2, 2);
        numbers[i] = dtype_ == DType::kBf16 ? FloatFromBf16(bits) : FloatFromF16(bits);
      }
    }
    return numbers;
  }

  void Remove(const std::string& name) { tensors_.erase(name); }
  void Reshape(const std::string& name, std::vector<int64_t> shape) {
    tensors_.at(name).shape = std::move(shape);
  }
  // Makes element `index` of a tensor NaN.
  void Poison(const std::string& name, size_t index) {
    std::memset(tensors_.at(name).bytes.data() + index * SizeOf(dtype_), 0xff, SizeOf(dtype_));
  }

 private:
  struct Tensor {
    std::vector<int64_t> shape;
    std::vector<char> bytes;
  };

  void MakeLayer(int64_t index) {
    const ModelConfig& c = config_;
    const std::string prefix = "model.layers." + std::to_string(index) + ".";
    const int64_t q = c.head_count * c.head_dim;
    const int64_t kv = c.kv_head_count * c.head_dim;
    Make(prefix + "input_layernorm.weight", {c.hidden_size});
    Make(prefix + "post_attention_layernorm.weight", {c.hidden_size});
    MakeLinear(prefix + "self_attn.q_proj", q, c.hidden_size, c.qkv_bias);
    MakeLinear(prefix + "self_attn.k_proj", kv, c.hidden_size, c.qkv_bias);
    MakeLinear(prefix + "self_attn.v_proj", kv, c.hidden_size, c.qkv_bias);
    MakeLinear(prefix + "self_attn.o_proj", c.hidden_size, q, c.output_bias);
    MakeLinear(prefix + "mlp.gate_proj", c.intermediate_size, c.hidden_size, c.mlp_bias);
    MakeLinear(prefix + "mlp.up_proj", c.intermediate_size, c.hidden_size, c.mlp_bias);
    MakeLinear(prefix + "mlp.down_proj", c.hidden_size, c.intermediate_size, c.mlp_bias);
  }

  void MakeLinear(const std::string& name, int64_t rows, int64_t cols, bool bias) {
    Make(name + ".weight", {rows, cols});
    if (bias) Make(name + ".bias", {rows});
  }

  // Even numbers in [-1, 1) * scale: fast enough for a model of gigabytes.
  void Make(const std::string& name, std::vector<int64_t> shape) {
    size_t count = 1;
    for (const int64_t dim : shape) count *= static_cast<size_t>(dim);
    Tensor tensor{std::move(shape), std::vector<char>(count * SizeOf(dtype_))};
    std::minstd_rand random(static_cast<uint32_t>(std::hash<std::string>{}(name) % 2147483646 + 1));
    for (size_t i = 0; i < count; ++i) {
      const float value = scale_ * (static_cast<float>(random()) / 0x1p30f - 1.0f);
      if (dtype_ == DType::kF32) {
        std::memcpy(tensor.bytes.data() + i * 4, &value, 4);
      } else {
        const uint16_t bits = dtype_ == DType::kBf16 ? Bf16FromFloat(value) : F16FromFloat(value);
        std::memcpy(tensor.bytes.data() + i * 2, &bits, 2);
      }
    }
    tensors_[name] = std::move(tensor);
  }

  const ModelConfig config_;
  const DType dtype_;
  const float scale_;
  std::map<std::string, Tensor> tensors_;
};

// Odd wherever it may be: nothing fills a vector, a panel or a rank evenly.
inline ModelConfig SmallConfig() {
  ModelConfig config;
  config.vocab_size = 101;
  config.hidden_size = 52;
  config.intermediate_size = 75;
  config.layer_count = 2;
  config.head_count = 4;
  config.kv_head_count = 2;
  config.head_dim = 10;
  config.max_positions = 96;
  config.qkv_bias = true;
  config.tied_embeddings = true;
  config.name = "small";
  return config;
}

// Small, and what the GPU's kernels take: heads of 64 in groups of two.
inline ModelConfig SmallGpuConfig() {
  ModelConfig config = SmallConfig();
  config.hidden_size = 56;
  config.head_dim = 64;
  config.max_positions = 200;
  return config;
}

}  // namespace penstock::engine
