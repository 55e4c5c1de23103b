// The bridge between std::string_view (ours) and absl::string_view (Debian's
// abseil keeps them apart), and the macro that abseil of this age lacks.
#pragma once

#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace penstock {

inline absl::string_view A(std::string_view text) noexcept { return {text.data(), text.size()}; }
inline std::string_view S(absl::string_view text) noexcept { return {text.data(), text.size()}; }

#define RETURN_IF_ERROR(expression)                             \
  do {                                                          \
    if (absl::Status status_ = (expression); !status_.ok()) {   \
      return status_;                                           \
    }                                                           \
  } while (false)

}  // namespace penstock
