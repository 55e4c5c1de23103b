#include "backend-engine/load/safetensors.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include <fmt/format.h>

namespace penstock::engine {

absl::StatusOr<std::unique_ptr<SafetensorsFile>> SafetensorsFile::Open(const std::string& path) {
  const auto fail = [&path](const std::string& why) {
    return absl::InvalidArgumentError(fmt::format("{}: {}", path, why));
  };
  std::unique_ptr<SafetensorsFile> file(new SafetensorsFile);
  file->path_ = path;
  file->fd_ = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (file->fd_ < 0) return fail(fmt::format("cannot be opened: {}", std::strerror(errno)));
  struct stat info = {};
  if (fstat(file->fd_, &info) != 0 || !S_ISREG(info.st_mode)) return fail("not a regular file");
  file->file_bytes_ = static_cast<uint64_t>(info.st_size);
  file->modified_ = info.st_mtim;

  // The header is read, not mapped: a file that shrinks meanwhile is an error.
  std::string prefix;
  const size_t prefix_bytes = std::min<uint64_t>(8, file->file_bytes_);
  if (absl::Status status = file->ReadAt(0, prefix_bytes, prefix); !status.ok()) return status;
  const auto length = SafetensorsHeaderLength(prefix, file->file_bytes_, path);
  if (!length.ok()) return length.status();
  std::string header;
  if (absl::Status status = file->ReadAt(8, *length, header); !status.ok()) return status;
  file->data_start_ = 8 + *length;
  auto tensors = ParseSafetensorsHeader(header, file->data_bytes(), path);
  if (!tensors.ok()) return tensors.status();
  file->tensors_ = std::move(*tensors);

  void* map = mmap(nullptr, file->file_bytes_, PROT_READ, MAP_PRIVATE, file->fd_, 0);
  if (map == MAP_FAILED) {
    return fail(fmt::format("{} bytes cannot be mapped: {}", file->file_bytes_,
                            std::strerror(errno)));
  }
  file->map_ = static_cast<const std::byte*>(map);
  return file;
}

SafetensorsFile::~SafetensorsFile() {
  if (map_ != nullptr) munmap(const_cast<std::byte*>(map_), file_bytes_);
  if (fd_ >= 0) close(fd_);
}

std::span<const std::byte> SafetensorsFile::Bytes(const StoredTensor& tensor) const {
  return {map_ + data_start_ + tensor.begin, tensor.end - tensor.begin};
}

absl::Status SafetensorsFile::ReadAt(uint64_t offset, size_t size, std::string& out) const {
  out.resize(size);
  size_t done = 0;
  while (done < size) {
    const ssize_t count =
        pread(fd_, out.data() + done, size - done, static_cast<off_t>(data_start_ + offset + done));
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) {
      return absl::InvalidArgumentError(
          fmt::format("{}: reading stopped at byte {}: {}", path_, data_start_ + offset + done,
                      count < 0 ? std::strerror(errno) : "the file became shorter"));
    }
    done += static_cast<size_t>(count);
  }
  return absl::OkStatus();
}

absl::Status SafetensorsFile::CheckUnchanged() const {
  struct stat info = {};
  if (fstat(fd_, &info) != 0 || static_cast<uint64_t>(info.st_size) != file_bytes_ ||
      info.st_mtim.tv_sec != modified_.tv_sec || info.st_mtim.tv_nsec != modified_.tv_nsec) {
    return absl::DataLossError(fmt::format(
        "{}: was written to while it was being loaded; replace checkpoints by renaming", path_));
  }
  return absl::OkStatus();
}

}  // namespace penstock::engine
