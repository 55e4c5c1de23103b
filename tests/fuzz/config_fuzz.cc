// Any bytes as a policy file: refused, or shown as a file that means the same.
// Begin with config/*.yaml as the corpus.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "config/parse.h"
#include "config/show.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  namespace config = penstock::config;
  static const config::Outside sealed = {
      .environment = [](const std::string&) { return std::nullopt; },
      .read_file = [](const std::string&) -> absl::StatusOr<std::string> {
        return absl::NotFoundError("no files here");
      },
  };
  config::ParseResult result =
      config::Parse({reinterpret_cast<const char*>(data), size}, "fuzz.yaml", sealed);
  if (!result.ok()) return 0;
  for (config::Pool& pool : result.config->pools) pool.auth = {};
  const config::ParseResult again =
      config::Parse(config::Show(*result.config), "shown.yaml", sealed);
  if (!again.ok() || !config::Diff(*result.config, *again.config).empty()) std::abort();
  return 0;
}
