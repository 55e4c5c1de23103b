// A number with one writing thread that any thread may read: no lock, no locked
// instruction.
#pragma once

#include <atomic>
#include <cstdint>

namespace penstock {

class Cell {
 public:
  void Add(int64_t amount = 1) {
    value_.store(value_.load(std::memory_order_relaxed) + amount, std::memory_order_relaxed);
  }
  void Set(int64_t value) { value_.store(value, std::memory_order_relaxed); }
  int64_t value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<int64_t> value_{0};
};

}  // namespace penstock
