#include "proxy/backends/operator_words.h"

#include <algorithm>

namespace penstock {

std::shared_ptr<Backend> FindBackend(const Fleet& fleet, std::string_view pool, std::string_view name) {
  for (const auto& candidate : fleet.pools) {
    if (candidate->settings.name != pool) continue;
    const auto found = std::ranges::find(candidate->backends, name, [](const auto& backend) {
      return std::string_view(backend->name);
    });
    if (found != candidate->backends.end()) return *found;
  }
  return nullptr;
}

bool Operate(Backend& backend, std::string_view word, MonoTime now) {
  BackendState& state = backend.state;
  if (word == "drain" || word == "undrain") {
    state.drained = word == "drain";
  } else if (word == "breaker/open") {
    state.breaker.Force(BreakerForce::kOpen, now);
  } else if (word == "breaker/close") {
    state.breaker.Force(BreakerForce::kClosed, now);
  } else if (word == "breaker/auto") {
    state.breaker.Force(BreakerForce::kAuto, now);
  } else {
    return false;
  }
  return true;
}

std::vector<std::string_view> WordsFor(const Backend& backend) {
  std::vector<std::string_view> words;
  if (backend.state.drained) words.push_back("drain");
  switch (backend.state.breaker.view().force) {
    case BreakerForce::kAuto: break;
    case BreakerForce::kOpen: words.push_back("breaker/open"); break;
    case BreakerForce::kClosed: words.push_back("breaker/close"); break;
  }
  return words;
}

}  // namespace penstock
