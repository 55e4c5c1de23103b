// The embedded model for the checks, read without any library: one safetensors
// file and config.json, both of this repository and trusted.
#pragma once

#include <cstring>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "backend-engine/model/model_config.h"
#include "backend-engine/model/tensor_view.h"
#include "tests/gpu/plain_json.h"

namespace penstock::engine {

class PlainModel {
 public:
  explicit PlainModel(const std::string& folder)
      : bytes_(ReadFile(folder + "/model.safetensors")), golden_(ReadJson(folder + "/golden.json")) {
    uint64_t header = 0;
    std::memcpy(&header, bytes_.data(), 8);
    header_ = JsonReader(std::string_view(bytes_).substr(8, header)).Read();
    data_ = 8 + header;
    const Json config = ReadJson(folder + "/config.json");
    const auto number = [&config](const char* name) {
      return static_cast<int64_t>(config.At(name).number);
    };
    config_.vocab_size = number("vocab_size");
    config_.hidden_size = number("hidden_size");
    config_.intermediate_size = number("intermediate_size");
    config_.layer_count = number("num_hidden_layers");
    config_.head_count = number("num_attention_heads");
    config_.kv_head_count = number("num_key_value_heads");
    config_.head_dim = config_.hidden_size / config_.head_count;
    config_.max_positions = number("max_position_embeddings");
    config_.rms_eps = config.At("rms_norm_eps").number;
    config_.qkv_bias = true;  // As every Qwen2 model.
    config_.tied_embeddings = config.At("tie_word_embeddings").kind == Json::Kind::kTrue;
    config_.rope.theta = config.At("rope_theta").number;
  }

  const ModelConfig& config() const { return config_; }
  const Json& golden() const { return golden_; }

  TensorSource source() const {
    return [this](std::string_view name) -> std::optional<TensorView> {
      const Json* tensor = header_.Find(std::string(name));
      if (tensor == nullptr || tensor->At("dtype").text != "BF16") return std::nullopt;
      TensorView view{.dtype = DType::kBf16, .shape = {}, .bytes = {}};
      for (const Json& dim : tensor->At("shape").items) {
        view.shape.push_back(static_cast<int64_t>(dim.number));
      }
      const auto& ends = tensor->At("data_offsets").items;
      const auto begin = static_cast<size_t>(ends.at(0).number);
      view.bytes = std::as_bytes(std::span(bytes_)).subspan(
          data_ + begin, static_cast<size_t>(ends.at(1).number) - begin);
      return view;
    };
  }

  static std::string ReadFile(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) {
      std::fprintf(stderr, "%s cannot be read\n", path.c_str());
      std::exit(1);
    }
    return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  }

 private:
  static Json ReadJson(const std::string& path) {
    const std::string text = ReadFile(path);
    return JsonReader(text).Read();
  }

  std::string bytes_;
  Json golden_;
  Json header_;
  size_t data_ = 0;
  ModelConfig config_;
};

}  // namespace penstock::engine
