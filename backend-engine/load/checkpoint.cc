#include "backend-engine/load/checkpoint.h"

#include <algorithm>
#include <filesystem>
#include <map>
#include <set>

#include <fmt/format.h>
#include <xxhash.h>

#include "absl/status/status.h"
#include "backend-engine/load/expected_tensors.h"
#include "backend-engine/load/json_file.h"

namespace penstock::engine {
namespace {

constexpr size_t kConfigBytesMax = 16 << 20;
constexpr size_t kIndexBytesMax = 64 << 20;
constexpr size_t kShardsMax = 4096;
constexpr size_t kSampleBytes = 4096;

std::optional<DType> ComputableType(std::string_view dtype) {
  if (dtype == "F32") return DType::kF32;
  if (dtype == "BF16") return DType::kBf16;
  if (dtype == "F16") return DType::kF16;
  return std::nullopt;
}

// The last part of a path, also where it ends in a slash.
std::string FolderName(const std::string& dir) {
  std::filesystem::path path(dir);
  if (!path.has_filename()) path = path.parent_path();
  const std::string name = path.filename().string();
  return name.empty() || name == "." ? "model" : name;
}

absl::Status NoWeights(const std::string& dir) {
  std::error_code ignored;
  for (const char* pickle : {"pytorch_model.bin", "pytorch_model.bin.index.json", "model.pt"}) {
    if (std::filesystem::exists(dir + "/" + pickle, ignored)) {
      return absl::NotFoundError(fmt::format(
          "{}/{}: a pickle, which can run code, is never read; convert it to safetensors", dir,
          pickle));
    }
  }
  return absl::NotFoundError(fmt::format(
      "{}: neither model.safetensors nor model.safetensors.index.json is there", dir));
}

// Shard -> its tensors, from model.safetensors.index.json.
absl::StatusOr<std::map<std::string, std::vector<std::string>>> ParseIndex(
    std::string_view text, const std::string& file) {
  const absl::StatusOr<nlohmann::json> index = ParseStrictJson(text, file);
  if (!index.ok()) return index.status();
  const auto fail = [&file](const std::string& why) {
    return absl::InvalidArgumentError(fmt::format("{}: weight_map: {}", file, why));
  };
  const auto weight_map =
      index->is_object() ? index->find("weight_map") : index->end();
  if (!index->is_object() || weight_map == index->end() || !weight_map->is_object() ||
      weight_map->empty()) {
    return fail("missing or empty; expected an object from tensor names to files");
  }
  std::map<std::string, std::vector<std::string>> shards;
  for (const auto& [tensor, shard] : weight_map->items()) {
    if (!shard.is_string()) return fail(Quoted(tensor) + " is given no file name");
    const std::string& name = shard.get_ref<const std::string&>();
    if (name.empty() || name.front() == '.' || name.find_first_of("/\\") != std::string::npos ||
        name.find('\0') != std::string::npos || !name.ends_with(".safetensors")) {
      return fail(fmt::format("{}: {} is not the name of a .safetensors file of this folder",
                              Quoted(tensor), Quoted(name)));
    }
    shards[name].push_back(tensor);
    if (shards.size() > kShardsMax) return fail(fmt::format("more than {} files", kShardsMax));
  }
  return shards;
}

void HashNumber(XXH3_state_t* state, uint64_t value) {
  unsigned char bytes[8];
  for (int i = 0; i < 8; ++i) bytes[i] = static_cast<unsigned char>(value >> (8 * i));
  XXH3_64bits_update(state, bytes, sizeof(bytes));
}

void HashText(XXH3_state_t* state, std::string_view text) {
  HashNumber(state, text.size());
  XXH3_64bits_update(state, text.data(), text.size());
}

}  // namespace

absl::StatusOr<std::unique_ptr<Checkpoint>> Checkpoint::Open(const std::string& dir) {
  std::error_code ignored;
  if (!std::filesystem::is_directory(dir, ignored)) {
    return absl::NotFoundError(fmt::format("{}: no such folder; expected a model folder", dir));
  }
  auto config_text = ReadWholeFile(dir + "/config.json", kConfigBytesMax);
  if (!config_text.ok()) return config_text.status();
  auto generation_text = ReadWholeFile(dir + "/generation_config.json", kConfigBytesMax);
  if (!generation_text.ok() && !absl::IsNotFound(generation_text.status())) {
    return generation_text.status();
  }
  auto parsed = ParseModelConfig(*config_text, generation_text.ok() ? *generation_text : "",
                                 FolderName(dir));
  if (!parsed.ok()) {
    return absl::InvalidArgumentError(
        fmt::format("{}/{}", dir, std::string(parsed.status().message())));
  }
  std::unique_ptr<Checkpoint> checkpoint(new Checkpoint);
  checkpoint->parsed_ = std::move(*parsed);
  if (absl::Status status = checkpoint->OpenFiles(dir); !status.ok()) return status;
  absl::Status fits = CheckExpectedTensors(checkpoint->config(), checkpoint->source());
  if (fits.ok()) fits = CheckUnexpectedTensors(checkpoint->config(), checkpoint->TensorNames());
  if (!fits.ok()) {
    return absl::InvalidArgumentError(fmt::format("{}: {}", dir, std::string(fits.message())));
  }
  if (absl::Status status = checkpoint->HashWeights(); !status.ok()) return status;
  return checkpoint;
}

absl::Status Checkpoint::OpenFiles(const std::string& dir) {
  const absl::StatusOr<std::string> index =
      ReadWholeFile(dir + "/model.safetensors.index.json", kIndexBytesMax);
  if (index.ok()) return OpenSharded(dir, *index);
  if (!absl::IsNotFound(index.status())) return index.status();
  std::error_code ignored;
  const std::string single = dir + "/model.safetensors";
  if (!std::filesystem::exists(single, ignored)) return NoWeights(dir);
  return OpenFile(single);
}

absl::Status Checkpoint::OpenSharded(const std::string& dir, std::string_view index_text) {
  const std::string index_path = dir + "/model.safetensors.index.json";
  const auto shards = ParseIndex(index_text, index_path);
  if (!shards.ok()) return shards.status();
  for (const auto& [shard, names] : *shards) {
    const std::string path = dir + "/" + shard;
    if (absl::Status status = OpenFile(path); !status.ok()) return status;
    for (const std::string& name : names) {
      const auto found = tensors_.find(name);
      if (found == tensors_.end() || found->second.file->path() != path) {
        return absl::InvalidArgumentError(
            fmt::format("{}: tensor {} should be in {}, which does not hold it; fetch both again",
                        index_path, Quoted(name), shard));
      }
    }
  }
  return absl::OkStatus();
}

absl::Status Checkpoint::OpenFile(const std::string& path) {
  auto file = SafetensorsFile::Open(path);
  if (!file.ok()) return file.status();
  for (const StoredTensor& tensor : (*file)->tensors()) {
    const bool weight = tensor.name.ends_with(".weight") || tensor.name.ends_with(".bias");
    if (weight && !ComputableType(tensor.dtype).has_value()) {
      return absl::InvalidArgumentError(fmt::format(
          "{}: tensor {}: dtype {}; this engine reads F32, BF16 and F16: use such a checkpoint",
          path, Quoted(tensor.name), tensor.dtype));
    }
    if (!tensors_.try_emplace(tensor.name, Location{file->get(), &tensor}).second) {
      return absl::InvalidArgumentError(fmt::format("{}: tensor {} is also in {}", path,
                                                    Quoted(tensor.name),
                                                    tensors_[tensor.name].file->path()));
    }
    weight_bytes_ += tensor.end - tensor.begin;
  }
  files_.push_back(std::move(*file));
  return absl::OkStatus();
}

absl::Status Checkpoint::HashWeights() {
  const std::unique_ptr<XXH3_state_t, XXH_errorcode (*)(XXH3_state_t*)> state(
      XXH3_createState(), XXH3_freeState);
  XXH3_64bits_reset(state.get());
  std::string sample;
  for (const std::string& name : TensorNames()) {
    const auto [file, tensor] = tensors_.at(name);
    HashText(state.get(), name);
    HashText(state.get(), tensor->dtype);
    for (const int64_t dimension : tensor->shape) {
      HashNumber(state.get(), static_cast<uint64_t>(dimension));
    }
    const uint64_t bytes = tensor->end - tensor->begin;
    const size_t size = std::min<uint64_t>(bytes, kSampleBytes);
    for (const uint64_t at : {uint64_t{0}, (bytes - size) / 2, bytes - size}) {
      if (absl::Status status = file->ReadAt(tensor->begin + at, size, sample); !status.ok()) {
        return status;
      }
      HashText(state.get(), sample);
    }
  }
  weights_hash_ = XXH3_64bits_digest(state.get());
  return absl::OkStatus();
}

TensorSource Checkpoint::source() const {
  return [this](std::string_view name) { return Find(name); };
}

std::optional<TensorView> Checkpoint::Find(std::string_view name) const {
  const auto found = tensors_.find(std::string(name));
  if (found == tensors_.end()) return std::nullopt;
  const auto [file, tensor] = found->second;
  const std::optional<DType> type = ComputableType(tensor->dtype);
  if (!type.has_value()) return std::nullopt;
  return TensorView{.dtype = *type, .shape = tensor->shape, .bytes = file->Bytes(*tensor)};
}

std::vector<std::string> Checkpoint::TensorNames() const {
  std::vector<std::string> names;
  names.reserve(tensors_.size());
  for (const auto& [name, location] : tensors_) names.push_back(name);
  std::sort(names.begin(), names.end());
  return names;
}

std::string Checkpoint::weights_hash_hex() const { return fmt::format("{:016x}", weights_hash_); }

absl::Status Checkpoint::CheckUnchanged() const {
  for (const auto& file : files_) {
    if (absl::Status status = file->CheckUnchanged(); !status.ok()) return status;
  }
  return absl::OkStatus();
}

}  // namespace penstock::engine
