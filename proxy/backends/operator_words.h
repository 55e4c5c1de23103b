// What an operator says about one backend: on the admin listener, and to the process
// that takes over, which is told what its predecessor was.
//
// Threads: any; the control thread says them.
#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include "proxy/backends/backend.h"

namespace penstock {

// Null: the fleet has no such backend.
std::shared_ptr<Backend> FindBackend(const Fleet& fleet, std::string_view pool, std::string_view name);

// drain, undrain, breaker/open, breaker/close, breaker/auto. False: no such word.
bool Operate(Backend& backend, std::string_view word, MonoTime now);

// The words that make a new backend what operators have made this one.
std::vector<std::string_view> WordsFor(const Backend& backend);

}  // namespace penstock
