#include "proxy/backends/listener_metrics.h"

namespace penstock {

ListenerCells& ListenerMetrics::Of(std::string_view listener) {
  const std::lock_guard lock(mutex_);
  for (const auto& cells : cells_) {
    if (cells->name == listener) return *cells;
  }
  cells_.push_back(std::make_unique<ListenerCells>(listener));
  return *cells_.back();
}

std::vector<const ListenerCells*> ListenerMetrics::All() const {
  const std::lock_guard lock(mutex_);
  std::vector<const ListenerCells*> all;
  for (const auto& cells : cells_) all.push_back(cells.get());
  return all;
}

}  // namespace penstock
