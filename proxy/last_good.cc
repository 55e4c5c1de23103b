#include "proxy/last_good.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include <fmt/format.h>

namespace penstock {

absl::Status KeepLastGood(const std::string& path, std::string_view text) {
  const std::string fresh = path + ".new";
  const auto failed = [&](const char* what) {
    const absl::Status status = absl::UnavailableError(fmt::format("{}: {}: {}", fresh, what, std::strerror(errno)));
    ::unlink(fresh.c_str());
    return status;
  };
  ::unlink(fresh.c_str());  // Never through a link that lies there.
  const int file = ::open(fresh.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (file < 0) return failed("open");
  bool written = true;
  while (!text.empty() && written) {
    const ssize_t count = ::write(file, text.data(), text.size());
    if (count < 0 && errno == EINTR) continue;
    written = count > 0;
    if (written) text.remove_prefix(static_cast<size_t>(count));
  }
  written = written && ::fsync(file) == 0;
  const int error = errno;
  ::close(file);
  errno = error;
  if (!written) return failed("write");
  if (std::rename(fresh.c_str(), path.c_str()) != 0) return failed("rename");
  return absl::OkStatus();
}

}  // namespace penstock
