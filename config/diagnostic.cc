#include "config/diagnostic.h"

#include <algorithm>
#include <tuple>

#include "fmt/format.h"

namespace penstock::config {

std::string ToString(const Diagnostic& diagnostic) {
  std::string text = diagnostic.file;
  if (diagnostic.where.line > 0) {
    text += fmt::format(":{}:{}", diagnostic.where.line, diagnostic.where.column);
  }
  text += ": ";
  if (diagnostic.warning) text += "warning: ";
  if (!diagnostic.path.empty()) text += diagnostic.path + ": ";
  return text + diagnostic.message;
}

Location Find(const Locations& locations, std::string_view path) {
  while (!path.empty()) {
    if (const auto found = locations.find(path); found != locations.end()) return found->second;
    const size_t end = path.find_last_of(".[");
    path = path.substr(0, end == std::string_view::npos ? 0 : end);
  }
  return {};
}

void Add(std::vector<Diagnostic>& diagnostics, Diagnostic diagnostic) {
  if (diagnostics.size() < kDiagnosticsKept) diagnostics.push_back(std::move(diagnostic));
}

void Sort(std::vector<Diagnostic>& diagnostics) {
  std::stable_sort(
      diagnostics.begin(), diagnostics.end(), [](const Diagnostic& a, const Diagnostic& b) {
        return std::tie(a.where.line, a.where.column) < std::tie(b.where.line, b.where.column);
      });
}

}  // namespace penstock::config
