// One safetensors file, mapped read-only. Opening reads and checks the header;
// a tensor's bytes are read by whoever touches them.
//
// A mapped file that somebody truncates afterwards raises SIGBUS where its
// missing pages are touched; no check can prevent that, only copying could.
// So sizes are checked at Open(), and whoever has copied the weights out asks
// CheckUnchanged() before it trusts them. Replace a checkpoint by renaming a
// new file over the old one, never by writing into it.
#pragma once

#include <cstdint>
#include <ctime>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "backend-engine/load/safetensors_header.h"
#include "backend-engine/model/tensor_view.h"

namespace penstock::engine {

class SafetensorsFile {
 public:
  static absl::StatusOr<std::unique_ptr<SafetensorsFile>> Open(const std::string& path);
  ~SafetensorsFile();
  SafetensorsFile(const SafetensorsFile&) = delete;
  SafetensorsFile& operator=(const SafetensorsFile&) = delete;

  const std::string& path() const { return path_; }
  const std::vector<StoredTensor>& tensors() const { return tensors_; }
  uint64_t data_bytes() const { return file_bytes_ - data_start_; }

  // The bytes of one of tensors(); valid as long as this object.
  std::span<const std::byte> Bytes(const StoredTensor& tensor) const;

  // Reads `size` bytes of the data at `offset` without touching the mapping,
  // so that a file that shrank is an error.
  absl::Status ReadAt(uint64_t offset, size_t size, std::string& out) const;

  // Error if the file is no longer the one that was opened.
  absl::Status CheckUnchanged() const;

 private:
  SafetensorsFile() = default;

  std::string path_;
  int fd_ = -1;
  const std::byte* map_ = nullptr;
  uint64_t file_bytes_ = 0;
  uint64_t data_start_ = 0;
  timespec modified_ = {};
  std::vector<StoredTensor> tensors_;
};

}  // namespace penstock::engine
