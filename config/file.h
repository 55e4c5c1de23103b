// Reads a small file whole, whatever it turns out to be.
#pragma once

#include <cstddef>
#include <string>

#include "absl/status/statusor.h"

namespace penstock::config {

inline constexpr size_t kFileBytesMax = 1024 * 1024;  // Of a policy file or a key file.

// Errors, each naming the path and the reason: missing, unreadable, not a regular
// file (a folder, a pipe, a device: never waited for), longer than `bytes_max`;
// ResourceExhausted: there was no descriptor left to open it with.
absl::StatusOr<std::string> ReadFileText(const std::string& path, size_t bytes_max = kFileBytesMax);

}  // namespace penstock::config
