// What must hold for any bytes as a policy file: they are refused, or shown as a file
// that means the same.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "config/parse.h"
#include "config/show.h"
#include "proxy/base/check.h"

namespace penstock {

inline void FuzzConfig(std::string_view text) {
  static const config::Outside sealed = {
      .environment = [](const std::string&) { return std::nullopt; },
      .read_file = [](const std::string&) -> absl::StatusOr<std::string> {
        return absl::NotFoundError("no files here");
      },
  };
  config::ParseResult result = config::Parse(text, "fuzz.yaml", sealed);
  if (!result.ok()) return;
  for (config::Pool& pool : result.config->pools) pool.auth = {};
  const config::ParseResult again = config::Parse(config::Show(*result.config), "shown.yaml", sealed);
  CHECK(again.ok());
  CHECK(config::Diff(*result.config, *again.config).empty());
}

}  // namespace penstock
