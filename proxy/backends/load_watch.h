// Keeps one backend's load report fresh, by the best way that works:
//
//   push  an endless GET PATH?watch=1, one JSON line a report
//   poll  GET PATH once an interval; always if the policy file gives an interval,
//         otherwise only while the push does not speak
//
// (Piggybacked reports come from the workers; own in-flight counts need nobody.
// Which rung a report counts as is decided where it is read: RungAt.)
//
// A stream that breaks after a second or more is reconnected at once, else after
// 100 ms, doubling to 5 s, with jitter. An engine without the path (404 and the
// like), or one that answers a watch with a single report, is asked for a stream
// again only every 30 s. A stream that breaks, or is silent for `stale`, after it has spoken
// makes the backend a suspect and calls `check`, which asks for a health check; so
// does a stream that begins to speak, since its backend may have just come back.
//
// Threads: the control loop's thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "absl/functional/any_invocable.h"
#include "config/config.h"
#include "proxy/backends/backend.h"
#include "proxy/backends/backend_dialer.h"
#include "proxy/backends/watch_seams.h"
#include "proxy/http/client.h"

namespace penstock {

// Cuts a stream into lines. A line longer than kLoadLineMax is skipped and told.
class LineSplitter {
 public:
  // Calls on_line(line) for every whole line that is not empty, without its end.
  // Returns how many lines were too long.
  template <typename OnLine>
  size_t Feed(std::string_view data, OnLine&& on_line);
  void Clear();

 private:
  std::string partial_;
  bool skipping_ = false;
};

class LoadWatch {
 public:
  static constexpr MonoTime kRetryFirst = 100 * kMillisecond;
  static constexpr MonoTime kRetryMost = 5 * kSecond;
  static constexpr MonoTime kRetryUnsupported = 30 * kSecond;
  static constexpr MonoTime kProven = kSecond;  // A stream that lasted this long works.

  LoadWatch(const WatchSeams& seams, Backend& backend, const config::LoadReports& settings,
            absl::AnyInvocable<void()> check,
            config::Protocol protocol = config::Protocol::kAuto);

  // The address is known, or is another one.
  void Restart();
  // The backend is well again: does not wait for the next retry of the stream.
  void ConnectNow();
  // Every now and then (100 ms): notices silence.
  void Tick();

  bool speaking() const { return speaking_; }   // The push stream is up and not stale.

 private:
  FetchOptions Options(std::string target) const;
  void Connect();
  void OnData(std::string_view data);
  void OnLine(std::string_view line);
  void OnStreamEnd(const absl::StatusOr<FetchResult>& result);
  void OnSilence(std::string_view what);
  void Poll();
  void SchedulePoll();
  void OnPolled(const absl::StatusOr<FetchResult>& result);
  void Take(std::string_view line, lb::Rung rung);

  const WatchSeams seams_;
  Backend& backend_;
  BackendDialer dialer_;
  const config::LoadReports settings_;
  const config::Protocol protocol_;
  const MonoTime stale_;
  absl::AnyInvocable<void()> check_;
  LineSplitter lines_;
  bool speaking_ = false;
  uint64_t reports_ = 0;        // Of this connection.
  bool complained_ = false;     // One log line a connection about reports that are refused.
  bool no_push_ = false;        // The engine does not know streams ...
  bool unsupported_ = false;    // ... nor even the path.
  uint32_t failures_ = 0;       // Connections in a row that did not last.
  MonoTime connected_ = 0;
  MonoTime last_line_ = 0;
  MonoTime last_tick_ = 0;
  std::unique_ptr<Fetch> stream_;
  std::unique_ptr<Fetch> poll_;
  TimerQueue::Timer retry_;
  TimerQueue::Timer poll_timer_;
};

template <typename OnLine>
size_t LineSplitter::Feed(std::string_view data, OnLine&& on_line) {
  size_t too_long = 0;
  while (!data.empty()) {
    const size_t end = data.find('\n');
    const bool whole = end != std::string_view::npos;
    std::string_view piece = data.substr(0, end);
    data.remove_prefix(whole ? end + 1 : data.size());
    if (!skipping_ && partial_.size() + piece.size() > kLoadLineMax) {
      skipping_ = true;
      ++too_long;
      partial_.clear();
    }
    if (!skipping_ && (!whole || !partial_.empty())) {
      partial_ += piece;
      piece = partial_;
    }
    if (!whole) continue;
    if (piece.ends_with('\r')) piece.remove_suffix(1);
    if (!skipping_ && !piece.empty()) on_line(piece);
    skipping_ = false;
    partial_.clear();
  }
  return too_long;
}

}  // namespace penstock
