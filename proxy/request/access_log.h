// The access log: one JSON line a request, in the words of docs/metrics.md, never
// a prompt, an answer or a key. Lines are formatted by the worker and written by
// a thread of the log's own; when that thread falls behind, lines are dropped and
// counted, and no request waits.
//
// Threads: Write from any thread.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace penstock {

struct AccessLogEntry {
  absl::Time start;
  std::string_view request_id, method, path, protocol;
  std::string_view route, pool, backend, model, cache, flag, details, client;
  uint16_t status = 0;
  bool stream = false;
  uint32_t attempts = 0;
  uint64_t bytes_received = 0, bytes_sent = 0;
  int64_t duration_us = 0;
  int64_t ttft_us = -1;             // -1: none.
};

class AccessLog {
 public:
  static constexpr size_t kBufferMax = 4 << 20;  // Bytes waiting to be written.

  // `target`: "stdout" or a file's path (opened for appending).
  static absl::StatusOr<std::unique_ptr<AccessLog>> Open(const std::string& target);
  ~AccessLog();                     // Writes what is waiting.

  void Write(const AccessLogEntry& entry);
  uint64_t dropped() const { return dropped_.load(std::memory_order_relaxed); }

 private:
  explicit AccessLog(int descriptor) : descriptor_(descriptor) {}
  void Run();

  const int descriptor_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::string waiting_;             // Guarded by mutex_.
  bool stop_ = false;               // Guarded by mutex_.
  std::atomic<uint64_t> dropped_{0};
  std::thread thread_;
};

}  // namespace penstock
