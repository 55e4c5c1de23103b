// Weights of a model that nobody trained, in memory as a checkpoint's are in the page
// cache: mapped, and a place of its own for every tensor.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "backend-engine/model/model_config.h"
#include "backend-engine/model/tensor_view.h"

namespace penstock::engine {

class RandomCheckpoint {
 public:
  explicit RandomCheckpoint(const ModelConfig& config);
  ~RandomCheckpoint();
  RandomCheckpoint(const RandomCheckpoint&) = delete;
  RandomCheckpoint& operator=(const RandomCheckpoint&) = delete;

  TensorSource source() const;
  int64_t bytes() const { return bytes_; }

  // Where there was no memory for all of them, tensors share some: then reading them does
  // not take as long as it would.
  bool whole() const { return whole_; }

 private:
  struct Place {
    std::vector<int64_t> shape;
    int64_t at = 0, bytes = 0;
  };
  void Add(const std::string& name, std::vector<int64_t> shape);
  void Map(int64_t bytes);

  std::map<std::string, Place, std::less<>> places_;
  int64_t bytes_ = 0, largest_ = 0, mapped_ = 0;
  bool whole_ = true;
  std::byte* memory_ = nullptr;
};

// Numbers that a token's step reads: all but the embedding's, where that is not the head's.
int64_t WeightsOfAStep(const ModelConfig& config);

}  // namespace penstock::engine
