// A config as text: the effective policy file, and what differs between two.
#pragma once

#include <string>
#include <vector>

#include "config/config.h"

namespace penstock::config {

// A policy file that says everything, defaults filled in, secrets masked.
std::string Show(const Config& config);

// One plain value. Items of lists go by their names, so that adding a backend in
// the middle is one difference: "pools[chat].backends[10.0.0.1:8000].weight".
struct Setting {
  std::string path;
  std::string value;
};

// Every value, in the order of the field table. Secrets are masked.
std::vector<Setting> Flatten(const Config& config);

// What a reload from `before` to `after` would change.
struct Change {
  std::string path;
  std::string before;  // Empty: it is new.
  std::string after;   // Empty: it is gone.
};

// In the order of `after`, what is gone last. A secret that changed is a change,
// without its value.
std::vector<Change> Diff(const Config& before, const Config& after);

}  // namespace penstock::config
