#include "backend-engine/api/terminal.h"

#include <fmt/format.h>

#include <algorithm>

#include "proxy/base/log.h"

namespace penstock::engine {

void Print(FILE* stream, std::string_view text) {
  std::fwrite(text.data(), 1, text.size(), stream);
  std::fflush(stream);
}

void PrintError(std::string_view message) {
  Print(stderr, fmt::format("penstock-engine: {}\n", message));
}

void LogLines(std::string_view lines) {
  while (!lines.empty()) {
    const size_t end = std::min(lines.find('\n'), lines.size());
    LogInfo("{}", lines.substr(0, end));
    lines.remove_prefix(std::min(end + 1, lines.size()));
  }
}

}  // namespace penstock::engine
