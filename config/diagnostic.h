// One thing wrong with a policy file, for people, editors and CI.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "config/config.h"

namespace penstock::config {

struct Diagnostic {
  std::string file;
  Location where;        // Line 0: the file as a whole.
  std::string path;      // "pools[0].timeouts.connect"; may be empty.
  std::string message;   // What was found, what was expected, the cure.
  bool warning = false;  // The file still loads.
};

// "file:line:column: path: message", with "warning: " before a warning's path.
std::string ToString(const Diagnostic& diagnostic);

// Where each field of a file stands, by its path. A field that is not here has
// its default, or for a pool what `defaults` says.
using Locations = std::map<std::string, Location, std::less<>>;

// Of `path`, or of the nearest thing around it that the file does name.
Location Find(const Locations& locations, std::string_view path);

inline constexpr size_t kDiagnosticsKept = 1000;  // Of one file; later ones are dropped.

void Add(std::vector<Diagnostic>& diagnostics, Diagnostic diagnostic);

// In the order of the file.
void Sort(std::vector<Diagnostic>& diagnostics);

}  // namespace penstock::config
