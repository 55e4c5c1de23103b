// A copy of the last policy file that was taken, for a start that finds the file itself
// broken (`serve --last-good PATH`).
#pragma once

#include <string>
#include <string_view>

#include "absl/status/status.h"

namespace penstock {

// Replaces the copy at once or not at all; it is nobody else's to read.
absl::Status KeepLastGood(const std::string& path, std::string_view text);

}  // namespace penstock
