// One answer on its way from a backend, recorded so that identical requests can
// share it: an append-only list of chunks with one leader that writes and any
// number of readers that follow from the first byte, each at its own pace. A
// complete flight is what the result cache keeps and replays.
//
// Threads: any. The leader and each reader live on one worker each; the state is
// guarded by one mutex, held for a few instructions, never across a callback.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

namespace penstock {

class Flight {
 public:
  enum class State : uint8_t {
    kWaiting,    // No byte of the answer yet.
    kStreaming,  // The head is there, chunks follow.
    kComplete,
    kFailed,     // Readers must fail or, if they had begun, cut.
  };
  using Chunk = std::shared_ptr<const std::string>;

  explicit Flight(size_t bytes_max, size_t readers_max = 1024)
      : bytes_max_(bytes_max), readers_max_(readers_max) {}

  // --- the leader ---
  // The backend has begun a stream of events that is still without a token.
  void Accept() { accepted_.store(true, std::memory_order_relaxed); }
  bool accepted() const { return accepted_.load(std::memory_order_relaxed); }
  void Begin(uint16_t status, std::string_view content_type);
  // Past bytes_max the flight takes no new readers and will not be cached; those
  // it has read on, and what all of them have read is dropped. A reader that is
  // more than kLagMax times bytes_max behind fails.
  void Append(std::string_view bytes);
  void Complete();
  // The backend failed, or the leader gives up. In kWaiting the reader that came
  // first is told to lead (Step::promoted) and the flight stays open; with no
  // reader, or later, the flight fails.
  void Abandon();

  // `wake` is called when the last reader leaves, from any thread; it must only
  // post to the leader's own loop. For a leader whose own client has left.
  void OnDeserted(std::function<void()> wake);

  bool has_readers() const;
  bool over_limit() const;
  State state() const;
  uint16_t status() const;
  std::string content_type() const;
  size_t bytes() const;
  // The whole answer in chunks of kChunkBytes, so that a client that reads slowly makes
  // nobody keep more than a few; REQUIRES: complete and within the limit.
  std::shared_ptr<Flight> Compact() const;

  static constexpr size_t kLagMax = 4;
  static constexpr size_t kChunkBytes = 64 * 1024;

 private:
  friend class FlightReader;
  struct Reader {
    uint64_t id;
    size_t next;                  // Number of the next chunk it wants.
    std::function<void()> wake;
    bool woken = false;           // wake() was called and Read() has not followed.
    bool promoted = false;
    bool lost = false;            // Fell too far behind.
  };
  using Wakes = std::vector<std::function<void()>>;

  // All REQUIRE mutex_ and return whom to wake once it is released.
  void WakeAll(Wakes& wakes);
  void PromoteOrFail(Wakes& wakes);
  void DropRead();
  Reader* Find(uint64_t id);

  const size_t bytes_max_;
  const size_t readers_max_;
  std::atomic<bool> accepted_{false};
  mutable std::mutex mutex_;
  State state_ = State::kWaiting;
  uint16_t status_ = 0;
  std::string content_type_;
  std::deque<Chunk> chunks_;      // From number first_chunk_ on.
  size_t first_chunk_ = 0;
  size_t kept_bytes_ = 0;         // In chunks_.
  size_t bytes_ = 0;              // Of the whole answer so far.
  bool over_limit_ = false;
  std::vector<Reader> readers_;   // In order of joining.
  std::function<void()> deserted_;
  uint64_t next_id_ = 1;
};

// Follows a flight from its first byte. Destroying it leaves the flight.
class FlightReader {
 public:
  // `wake` is called (from any thread, at most once until the next Read) when
  // there may be something new. It must only post to the reader's own loop.
  // Null: the flight takes no more readers.
  static std::unique_ptr<FlightReader> Join(std::shared_ptr<Flight> flight,
                                            std::function<void()> wake);
  ~FlightReader();

  struct Step {
    Flight::State state = Flight::State::kWaiting;
    bool promoted = false;             // Lead from now on; this reader has left.
    std::vector<Flight::Chunk> chunks; // New bytes, in order.
    bool more = false;                 // Stopped at `bytes_wanted`; call again.
  };
  // What is new, up to about `bytes_wanted` (a slow client takes no more than it can).
  Step Read(size_t bytes_wanted);

  const std::shared_ptr<Flight>& flight() const { return flight_; }

 private:
  FlightReader(std::shared_ptr<Flight> flight, uint64_t id) : flight_(std::move(flight)), id_(id) {}
  const std::shared_ptr<Flight> flight_;
  const uint64_t id_;
};

}  // namespace penstock
