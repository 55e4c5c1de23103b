// What one worker counts while it serves: plain numbers that it alone writes
// and that a scrape reads at any time. No lock, no locked instruction, no
// allocation: an Add is a load and a store in the worker's own cache lines.
//
// Threads: each object has one writing thread; any thread may read. A reader may
// see a histogram's count without its sum for a moment; totals never go back.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "proxy/backends/cell.h"
#include "proxy/backends/listener_metrics.h"
#include "proxy/backends/metric_words.h"
#include "proxy/base/time.h"

namespace penstock {

inline constexpr uint32_t kMaxWorkers = 64;

// The status codes that are counted by themselves; all others share "other".
inline constexpr std::array<uint16_t, 31> kCountedCodes = {
    101, 200, 201, 202, 204, 206, 301, 302, 304, 307, 308, 400, 401, 403, 404, 405,
    408, 409, 413, 414, 415, 422, 429, 431, 499, 500, 501, 502, 503, 504, 529};
inline constexpr size_t kCodes = kCountedCodes.size() + 1;

namespace internal {
constexpr std::array<uint8_t, 600> MakeCodeIndex() {
  std::array<uint8_t, 600> index{};
  for (auto& slot : index) slot = kCodes - 1;
  for (size_t i = 0; i < kCountedCodes.size(); ++i) index[kCountedCodes[i]] = i;
  return index;
}
inline constexpr std::array<uint8_t, 600> kCodeIndex = MakeCodeIndex();
}  // namespace internal

inline constexpr size_t CodeIndex(unsigned status) {
  return status < internal::kCodeIndex.size() ? internal::kCodeIndex[status] : kCodes - 1;
}

// Upper bounds of histogram buckets, in microseconds; one more bucket has no bound.
inline constexpr std::array<MonoTime, 17> kDurationBounds = {
    10'000,    20'000,     40'000,     80'000,     160'000,    320'000,
    500'000,   640'000,    800'000,    1'280'000,  2'560'000,  5'120'000,
    10'240'000, 20'480'000, 40'960'000, 81'920'000, 300'000'000};
inline constexpr std::array<MonoTime, 18> kTtftBounds = {
    1'000,   5'000,   10'000,  20'000,    40'000,    60'000,    80'000,    100'000,    250'000,
    500'000, 750'000, 800'000, 1'000'000, 2'500'000, 5'000'000, 7'500'000, 10'000'000, 60'000'000};
inline constexpr std::array<MonoTime, 13> kTpotBounds = {
    10'000,  25'000,  50'000,  75'000,  100'000,   150'000,  200'000,
    300'000, 400'000, 500'000, 750'000, 1'000'000, 2'500'000};
inline constexpr std::array<MonoTime, 14> kOverheadBounds = {
    10,    25,    50,     100,    250,    500,     1'000,
    2'500, 5'000, 10'000, 25'000, 50'000, 100'000, 1'000'000};

template <const auto& kBounds>
class HistogramCells {
 public:
  static constexpr size_t kBuckets = kBounds.size() + 1;

  void Observe(MonoTime micros) {
    size_t bucket = 0;
    while (bucket < kBounds.size() && micros > kBounds[bucket]) ++bucket;
    buckets_[bucket].Add();
    sum_.Add(micros);
  }
  static constexpr const auto& bounds() { return kBounds; }
  int64_t bucket(size_t index) const { return buckets_[index].value(); }  // Not cumulative.
  int64_t sum() const { return sum_.value(); }                            // Microseconds.

 private:
  std::array<Cell, kBuckets> buckets_;
  Cell sum_;
};

// What a connection to a backend speaks.
inline constexpr std::array<std::string_view, 2> kProtocolNames = {"http1", "http2"};

// One worker's counts for one pool; the name "" stands for requests that met none.
struct PoolCells {
  explicit PoolCells(std::string_view pool) : name(pool) {}

  // A request has been answered to its end (or broken off) after `duration`.
  void AddRequest(unsigned status, bool stream, MonoTime duration) {
    requests[CodeIndex(status)][stream ? 1 : 0].Add();
    durations.Observe(duration);
  }
  void AddFlag(Flag flag) { flags[static_cast<size_t>(flag)].Add(); }
  void AddTimeout(TimeoutKind kind) { timeouts[static_cast<size_t>(kind)].Add(); }
  void AddRetry(RetryReason reason) { retries[static_cast<size_t>(reason)].Add(); }
  void AddCacheLookup(CacheResult result) { cache_lookups[static_cast<size_t>(result)].Add(); }
  void AddDeadline(Stage stage) { deadlines[static_cast<size_t>(stage)].Add(); }
  void AddHedge(HedgeResult result) { hedges[static_cast<size_t>(result)].Add(); }
  void AddDecision(LbOutcome outcome) { decisions[static_cast<size_t>(outcome)].Add(); }

  const std::string name;
  std::array<std::array<Cell, 2>, kCodes> requests;        // [code][stream]
  HistogramCells<kDurationBounds> durations;
  HistogramCells<kTtftBounds> ttft;                        // Streamed answers, as the client sees it.
  HistogramCells<kTpotBounds> tpot;                        // Mean gap between events of one answer.
  HistogramCells<kOverheadBounds> overhead;                // Our own share of a request's time.
  HistogramCells<kDurationBounds> queue_wait;
  Cell active;                                             // Requests in progress.
  Cell queued;                                             // Waiting for a backend with room.
  std::array<Cell, kFlagNames.size()> flags;
  std::array<Cell, kTimeoutNames.size()> timeouts;
  std::array<Cell, kRetryReasonNames.size()> retries;
  Cell retry_budget_exhausted;
  std::array<Cell, kStageNames.size()> deadlines;
  std::array<Cell, kHedgeResultNames.size()> hedges;
  Cell sse_keep_alives;
  std::array<Cell, kCacheResultNames.size()> cache_lookups;
  std::array<Cell, kLbOutcomeNames.size()> decisions;
};

// Everything that one worker counts. Pool() hands out cells that live as long as
// this object, so that a counter never goes back when a policy file changes.
struct alignas(64) WorkerMetrics {
  // Pools beyond this many share the cells of the last one.
  static constexpr size_t kPoolsMax = 256;

  // Finds or makes the cells of a pool; takes a lock: ask once a reload and keep it.
  PoolCells& Pool(std::string_view name);
  Cell& Connections(ClientProtocol protocol) {
    return client_connections[static_cast<size_t>(protocol)];
  }
  void AddReset(H2Reset reason) { h2_resets[static_cast<size_t>(reason)].Add(); }
  void AddGoAway(H2GoAway reason) { h2_goaways[static_cast<size_t>(reason)].Add(); }
  void AddFlood(std::string_view limit) {
    for (size_t i = 0; i < kH2FloodNames.size(); ++i) {
      if (kH2FloodNames[i] == limit) h2_floods[i].Add();
    }
  }
  // For a scrape, any thread: the pools so far.
  std::vector<const PoolCells*> Pools() const;

  // [ClientProtocol]; one that has not spoken yet counts as HTTP/1.
  std::array<Cell, kClientProtocolNames.size()> client_connections;  // Open now.
  Cell client_connections_total;
  Cell client_connections_refused;                         // Over the limit.
  std::array<Cell, kProxyHeaderFaultNames.size()> proxy_header_faults;
  Cell shed_for_memory;                                    // New requests refused: memory is short,
  Cell shed_for_delay;                                     // or turns are late.
  Cell pauses_for_rate;                                    // Accepting stopped for a while.
  Cell pauses_for_memory;
  Cell protocol_errors;                                    // Client bytes refused as HTTP.
  std::array<Cell, kH2ResetNames.size()> h2_resets;
  std::array<Cell, kH2GoAwayNames.size()> h2_goaways;
  std::array<Cell, kH2FloodNames.size()> h2_floods;
  Cell buffered_bytes;                                     // Request bodies held.
  HistogramCells<kOverheadBounds> loop_delay;              // How late a turn of the loop began.
  ListenerMetrics listeners;

 private:
  mutable std::mutex mutex_;                               // Guards the list, not the cells.
  std::vector<std::unique_ptr<PoolCells>> pools_;
};

}  // namespace penstock
