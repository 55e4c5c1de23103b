// Rules across fields: names that must exist or must not exist twice, values that
// contradict each other, routes that nothing can reach.
#pragma once

#include <vector>

#include "config/config.h"
#include "config/diagnostic.h"

namespace penstock::config {

// Appends what is wrong. REQUIRES: every field is within its own bounds.
void Validate(const Config& config, const Locations& where, std::vector<Diagnostic>& diagnostics);

// Whether every request that `later` matches is taken by `earlier`.
bool Shadows(const Route& earlier, const Route& later);

}  // namespace penstock::config
