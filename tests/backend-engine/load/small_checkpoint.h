// A complete Llama checkpoint of a few hundred bytes in a folder of its own,
// to be damaged by tests.
#pragma once

#include <stdlib.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "backend-engine/load/expected_tensors.h"

namespace penstock::engine {

class SmallCheckpoint {
 public:
  struct Tensor {
    std::string dtype = "F32";
    std::vector<int64_t> shape;
    std::string bytes;
  };

  SmallCheckpoint() {
    char name[] = "/tmp/small_checkpoint_XXXXXX";
    dir_ = mkdtemp(name);
    ModelConfig config;
    config.architecture = Architecture::kLlama;
    config.vocab_size = 8;
    config.hidden_size = 4;
    config.intermediate_size = 6;
    config.layer_count = 1;
    config.head_count = 2;
    config.kv_head_count = 1;
    config.head_dim = 2;
    unsigned char next = 1;
    for (const ExpectedTensor& expected : ExpectedTensors(config)) {
      Tensor& tensor = tensors[expected.name];
      tensor.shape = expected.shape;
      int64_t count = 1;
      for (const int64_t dimension : expected.shape) count *= dimension;
      for (int64_t i = 0; i < count * 4; ++i) tensor.bytes += static_cast<char>(next++);
    }
  }
  ~SmallCheckpoint() { std::filesystem::remove_all(dir_); }

  const std::string& dir() const { return dir_; }

  void WriteText(const std::string& file, const std::string& text) const {
    std::ofstream(dir_ + "/" + file, std::ios::binary) << text;
  }

  static std::string Encode(const std::map<std::string, Tensor>& tensors) {
    std::string header;
    std::string data;
    for (const auto& [name, tensor] : tensors) {
      header += fmt::format(R"({}"{}":{{"dtype":"{}","shape":[{}],"data_offsets":[{},{}]}})",
                            header.empty() ? "{" : ",", name, tensor.dtype,
                            fmt::join(tensor.shape, ","), data.size(),
                            data.size() + tensor.bytes.size());
      data += tensor.bytes;
    }
    header += "}";
    return WithLength(header) + data;
  }

  // A header as it stands in a file: 8 bytes of length, then the text.
  static std::string WithLength(const std::string& header) {
    std::string out;
    for (int i = 0; i < 8; ++i) out += static_cast<char>(header.size() >> (8 * i));
    return out + header;
  }

  void WriteConfig() const {
    WriteText("config.json",
              R"({"model_type":"llama","vocab_size":8,"hidden_size":4,"intermediate_size":6,
                  "num_hidden_layers":1,"num_attention_heads":2,"num_key_value_heads":1,
                  "max_position_embeddings":64,"rms_norm_eps":1e-5,"eos_token_id":7})");
  }

  void Write() const {
    WriteConfig();
    WriteText("model.safetensors", Encode(tensors));
  }

  void WriteSharded() const {
    WriteConfig();
    std::map<std::string, Tensor> shards[2];
    std::string index;
    for (const auto& [name, tensor] : tensors) {
      const bool second = name > "model.layers.0.mlp";
      shards[second][name] = tensor;
      index += fmt::format(R"({}"{}":"{}.safetensors")", index.empty() ? "" : ",", name,
                           second ? 'b' : 'a');
    }
    WriteText("a.safetensors", Encode(shards[0]));
    WriteText("b.safetensors", Encode(shards[1]));
    WriteText("model.safetensors.index.json", "{\"metadata\":{},\"weight_map\":{" + index + "}}");
  }

  std::map<std::string, Tensor> tensors;

 private:
  std::string dir_;
};

}  // namespace penstock::engine
