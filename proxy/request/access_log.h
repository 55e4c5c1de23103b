// The access log: one JSON line a request, in the words of docs/metrics.md, never
// a prompt, an answer or a key. Lines are formatted by the worker and written by
// a thread of the log's own. A disk that is full or slow, or a pipe that nobody reads,
// costs lines, which are counted, and never makes a request or an exit wait.
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

#include "absl/functional/any_invocable.h"
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

  // While it ends, what is waiting has so long to be taken.
  static constexpr int kLastWordsMillis = 1000;

  // `target`: "stdout" or a file's path (opened for appending).
  static absl::StatusOr<std::unique_ptr<AccessLog>> Open(const std::string& target);
  // Each line goes to `sink` at once, on the thread that writes it; there is no other.
  static std::unique_ptr<AccessLog> Into(absl::AnyInvocable<void(std::string_view line)> sink);
  ~AccessLog();                     // Writes what is waiting.

  void Write(const AccessLogEntry& entry);
  // Opens the file anew before the next line: the old one was moved away. One that
  // cannot be opened leaves things as they are.
  void Reopen();
  uint64_t dropped() const { return dropped_.load(std::memory_order_relaxed); }

 private:
  AccessLog(std::string target, int descriptor);
  explicit AccessLog(absl::AnyInvocable<void(std::string_view line)> sink);
  void Run();
  void ReopenNow();
  // The rest that could not be written.
  std::string_view WriteOut(std::string_view lines);
  bool stopping();

  const std::string target_;
  absl::AnyInvocable<void(std::string_view line)> sink_;  // Instead of all the rest.
  int descriptor_;
  bool pipe_;                       // Takes PIPE_BUF bytes at once when it is ready.
  std::mutex mutex_;
  std::condition_variable wake_;
  std::string waiting_;             // Guarded by mutex_.
  bool stop_ = false;               // Guarded by mutex_.
  bool reopen_ = false;             // Guarded by mutex_.
  std::atomic<uint64_t> dropped_{0};
  std::thread thread_;
};

}  // namespace penstock
