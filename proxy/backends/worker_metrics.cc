#include "proxy/backends/worker_metrics.h"

namespace penstock {

PoolCells& WorkerMetrics::Pool(std::string_view name) {
  const std::lock_guard lock(mutex_);
  for (const auto& pool : pools_) {
    if (pool->name == name) return *pool;
  }
  if (pools_.size() >= kPoolsMax) return *pools_.back();
  pools_.push_back(
      std::make_unique<PoolCells>(pools_.size() + 1 == kPoolsMax ? "other" : name));
  return *pools_.back();
}

std::vector<const PoolCells*> WorkerMetrics::Pools() const {
  const std::lock_guard lock(mutex_);
  std::vector<const PoolCells*> pools;
  pools.reserve(pools_.size());
  for (const auto& pool : pools_) pools.push_back(pool.get());
  return pools;
}

}  // namespace penstock
