// A value that one thread at a time writes and any thread reads without a lock:
// a seqlock over atomic words. Readers never delay the writer; a reader that
// meets a write tries again. For plain values of a few cache lines.
#pragma once

#include <atomic>
#include <cstdint>
#include <cstring>
#include <thread>
#include <type_traits>

namespace penstock::engine {

template <typename T>
class Snapshot {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  Snapshot() { Store(T{}); }

  // Writers take turns by a lock of their own.
  void Store(const T& value) {
    uint64_t words[kWords] = {};
    std::memcpy(words, &value, sizeof(T));
    const uint64_t version = version_.load(std::memory_order_relaxed);
    version_.store(version + 1, std::memory_order_relaxed);
    // Release: whoever sees one of these words also sees the odd version.
    for (size_t i = 0; i < kWords; ++i) words_[i].store(words[i], std::memory_order_release);
    version_.store(version + 2, std::memory_order_release);
  }

  T Load() const {
    for (;;) {
      const uint64_t before = version_.load(std::memory_order_acquire);
      uint64_t words[kWords];
      for (size_t i = 0; i < kWords; ++i) words[i] = words_[i].load(std::memory_order_acquire);
      if (before % 2 == 0 && version_.load(std::memory_order_relaxed) == before) {
        T value;
        std::memcpy(&value, words, sizeof(T));
        return value;
      }
      std::this_thread::yield();  // The writer may need this core to finish.
    }
  }

 private:
  static constexpr size_t kWords = (sizeof(T) + 7) / 8;
  std::atomic<uint64_t> version_{0};
  std::atomic<uint64_t> words_[kWords] = {};
};

}  // namespace penstock::engine
