#include "config/file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "absl/status/status.h"
#include "fmt/format.h"

namespace penstock::config {
namespace {

absl::Status Failure(const std::string& path, std::string_view reason) {
  return absl::FailedPreconditionError(fmt::format("cannot read {}: {}", path, reason));
}

absl::StatusOr<std::string> ReadAll(int fd, const std::string& path, size_t bytes_max) {
  std::string text;
  char chunk[16 * 1024];
  while (text.size() <= bytes_max) {
    const ssize_t got = read(fd, chunk, sizeof(chunk));
    if (got == 0) return text;
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return Failure(path, std::strerror(errno));
    text.append(chunk, static_cast<size_t>(got));
  }
  return Failure(path, fmt::format("it is longer than {} bytes", bytes_max));
}

}  // namespace

absl::StatusOr<std::string> ReadFileText(const std::string& path, size_t bytes_max) {
  // Without O_NONBLOCK, opening a pipe waits for its other end.
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  if (fd < 0) {
    const bool exhausted = errno == EMFILE || errno == ENFILE;
    const absl::Status failure = Failure(path, std::strerror(errno));
    return exhausted ? absl::ResourceExhaustedError(failure.message()) : failure;
  }
  struct stat about = {};
  absl::StatusOr<std::string> text = Failure(path, "it is not a regular file");
  if (fstat(fd, &about) == 0 && S_ISREG(about.st_mode)) text = ReadAll(fd, path, bytes_max);
  close(fd);
  return text;
}

}  // namespace penstock::config
