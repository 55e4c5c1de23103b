// A Hugging Face model folder, opened: its configuration, and its weights as
// named, memory-mapped tensors from model.safetensors or from the shards that
// model.safetensors.index.json lists.
//
// Open() reads every header and checks that the tensors are all there in the
// shapes that config.json implies, and no others; it does not read the weights. Everything
// that can be wrong with a file is one line: file, tensor or field, found,
// expected, cure. No pickle is ever read.
//
// Threads: const once opened; source() may be called from any thread. The
// TensorViews point into the mapping and live as long as the Checkpoint.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "backend-engine/load/model_config_parse.h"
#include "backend-engine/load/safetensors.h"
#include "backend-engine/model/tensor_view.h"

namespace penstock::engine {

class Checkpoint {
 public:
  // `dir` may hold symbolic links, as the hub's cache does; the index may only
  // name files of the folder itself.
  static absl::StatusOr<std::unique_ptr<Checkpoint>> Open(const std::string& dir);

  const ModelConfig& config() const { return parsed_.model; }
  const GenerationDefaults& generation_defaults() const { return parsed_.generation; }

  // The source borrows the checkpoint.
  TensorSource source() const;
  std::optional<TensorView> Find(std::string_view name) const;
  std::vector<std::string> TensorNames() const;  // Sorted.

  uint64_t weight_bytes() const { return weight_bytes_; }

  // The same for the same weights on every machine and however they are
  // sharded: names, types, shapes and samples of every tensor's bytes. Tells
  // models apart; no defence against somebody who wants two to look alike.
  uint64_t weights_hash() const { return weights_hash_; }
  std::string weights_hash_hex() const;  // 16 digits, for load reports.

  // To be called after the weights were copied out: error if a file was
  // written to meanwhile.
  absl::Status CheckUnchanged() const;

 private:
  struct Location {
    const SafetensorsFile* file;
    const StoredTensor* tensor;
  };

  Checkpoint() = default;
  absl::Status OpenFiles(const std::string& dir);
  absl::Status OpenFile(const std::string& path);
  absl::Status OpenSharded(const std::string& dir, std::string_view index_text);
  absl::Status HashWeights();

  ParsedConfig parsed_;
  std::vector<std::unique_ptr<SafetensorsFile>> files_;
  absl::flat_hash_map<std::string, Location> tensors_;
  uint64_t weight_bytes_ = 0;
  uint64_t weights_hash_ = 0;
};

}  // namespace penstock::engine
