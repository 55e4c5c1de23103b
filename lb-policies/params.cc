#include "lb-policies/params.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "fmt/format.h"
#include "fmt/ranges.h"
#include "proxy/base/suggest.h"

namespace penstock::lb {
namespace {

// A decimal number and nothing else: no sign but '-', no hex, no "inf", no "nan".
bool ParseNumber(std::string_view text, double& number) {
  if (text.empty() || text.find_first_not_of("0123456789.-eE+") != std::string_view::npos) {
    return false;
  }
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc() && end == text.data() + text.size() && std::isfinite(number);
}

}  // namespace

void ParamReader::Number(std::string_view key, double lowest, double highest, double& value) {
  known_.push_back(key);
  for (const auto& [name, text] : params_) {
    if (name != key) continue;
    double number = 0;
    if (!ParseNumber(text, number) || number < lowest || number > highest) {
      if (error_.empty()) {
        error_ =
            fmt::format("{}: \"{}\" is not a number from {} to {}", key, text, lowest, highest);
      }
      return;
    }
    value = number;
  }
}

absl::Status ParamReader::Finish() {
  for (const auto& [name, text] : params_) {
    if (!error_.empty()) break;
    if (std::find(known_.begin(), known_.end(), name) != known_.end()) continue;
    error_ = fmt::format("{} has no setting \"{}\"", policy_, name);
    if (known_.empty()) {
      error_ += "; it has none";
    } else if (const std::string_view nearest = Nearest(name, known_); !nearest.empty()) {
      error_ += fmt::format("; did you mean \"{}\"?", nearest);
    } else {
      error_ += fmt::format("; known: {}", fmt::join(known_, ", "));
    }
  }
  return error_.empty() ? absl::OkStatus() : absl::InvalidArgumentError(error_);
}

}  // namespace penstock::lb
