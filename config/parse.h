// Reads a policy file.
//
// Strict: what is not understood is refused, never skipped, so that a misspelt
// limit is an error and not an absent limit. All errors of a file are found in
// one reading. Nothing is kept between calls; safe from any thread.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "config/config.h"
#include "config/diagnostic.h"

namespace penstock::config {

inline constexpr size_t kDiagnosticsMax = 50;  // Further errors are only counted.

struct ParseResult {
  std::optional<Config> config;         // Only without errors; warnings may stand beside it.
  std::vector<Diagnostic> diagnostics;  // In the order of the file.
  Locations where;                      // Of every field that the file sets.

  bool ok() const { return config.has_value(); }
  // Every diagnostic, one a line.
  std::string Messages() const;
};

// What a policy file may refer to outside itself.
struct Outside {
  std::function<std::optional<std::string>(const std::string& name)> environment;
  // Relative paths are those of the policy file's folder.
  std::function<absl::StatusOr<std::string>(const std::string& path)> read_file;
};

// This process's environment and file system.
const Outside& RealOutside();

// `file_name` is for messages and to find the files that the policy names.
ParseResult Parse(std::string_view text, std::string_view file_name,
                  const Outside& outside = RealOutside());

// Parse() of a file's contents; a file that cannot be read is a diagnostic.
ParseResult LoadFile(const std::string& path);

}  // namespace penstock::config
