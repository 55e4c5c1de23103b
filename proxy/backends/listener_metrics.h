// What one worker counts for each listener that speaks TLS. As worker_metrics.h: one
// writing thread, any thread may read.
#pragma once

#include <array>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "proxy/backends/cell.h"
#include "proxy/net/tls_info.h"

namespace penstock {

struct ListenerCells {
  explicit ListenerCells(std::string_view listener) : name(listener) {}

  const std::string name;
  Cell full, resumed;                                      // Handshakes that were done.
  std::array<Cell, kTlsFailureNames.size()> failures;      // By TlsFailure.
};

class ListenerMetrics {
 public:
  // Finds or makes the cells of a listener; takes a lock. They live as long as this.
  ListenerCells& Of(std::string_view listener);
  std::vector<const ListenerCells*> All() const;           // Any thread.

 private:
  mutable std::mutex mutex_;                               // Guards the list, not the cells.
  std::vector<std::unique_ptr<ListenerCells>> cells_;
};

}  // namespace penstock
