// Small worlds for the tests of this folder: a pool of named backends.
#pragma once

#include <memory>
#include <string>
#include <utility>

#include "proxy/backends/backend.h"

namespace penstock {

inline std::shared_ptr<const Fleet> FleetOf(config::Pool pool, size_t backends,
                                            const Fleet* previous = nullptr) {
  if (pool.name.empty()) pool.name = "main";
  for (size_t i = pool.backends.size(); i < backends; ++i) {
    config::Backend backend;
    backend.name = "b" + std::to_string(i);
    backend.address = "127.0.0.1:" + std::to_string(9001 + i);
    pool.backends.push_back(backend);
  }
  auto config = std::make_shared<config::Config>();
  config->pools.push_back(std::move(pool));
  return MakeFleet(config, previous);
}

inline std::shared_ptr<const PoolState> PoolOf(size_t backends, const config::Pool& pool = {}) {
  return FleetOf(pool, backends)->pools[0];
}

}  // namespace penstock
