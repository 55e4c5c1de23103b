// One answer on its way from a backend, recorded so that identical requests can
// share it: an append-only list of chunks with one leader that writes and any
// number of readers that follow from the first byte, each at its own pace. A
// complete flight is what the result cache keeps and replays.
//
// Threads: any. The leader and each reader live on one worker each; the state is
// guarded by one mutex, held for a few instructions, never across a callback.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "proxy/base/time.h"

namespace penstock {

class Flight : public std::enable_shared_from_this<Flight> {
 public:
  enum class State : uint8_t {
    kWaiting,    // No byte of the answer yet.
    kStreaming,  // The head is there, chunks follow.
    kComplete,
    kFailed,     // Readers that had begun must cut; see Promote for the others.
  };

  explicit Flight(size_t bytes_max) : bytes_max_(bytes_max) {}

  // --- the leader ---
  void Begin(uint16_t status, std::string_view content_type);
  // Past bytes_max the flight takes no new readers and will not be cached; those
  // it has read on, and chunks that all of them have read are dropped.
  void Append(std::string_view bytes);
  void Complete();
  // The backend failed, or the leader gives up. In kWaiting the reader that came
  // first is told to lead (Reader::promoted) and the flight stays open; with no
  // reader, or later, the flight fails.
  void Abandon();
  bool has_readers() const;
  bool over_limit() const;

  State state() const;
  uint16_t status() const;
  std::string content_type() const;
  size_t bytes() const;

 private:
  friend class FlightReader;
  struct Shared;
  const size_t bytes_max_;
  std::shared_ptr<Shared> shared_;
};

// Follows a flight from its first byte. Destroying it leaves the flight.
class FlightReader {
 public:
  // `wake` is called (from any thread, at most once until the next Read) when
  // there may be something new. It must only post to the reader's own loop.
  static std::unique_ptr<FlightReader> Join(std::shared_ptr<Flight> flight,
                                            absl::AnyInvocable<void()> wake);
  ~FlightReader();

  struct Step {
    Flight::State state = Flight::State::kWaiting;
    bool promoted = false;           // Lead from now on: send the request, then Begin/Append/Complete.
    std::vector<std::shared_ptr<const std::string>> chunks;  // New bytes, in order.
    bool more = false;               // Stopped at `bytes_wanted`; call again.
  };
  // What is new, up to about `bytes_wanted` (a slow client takes no more than it can).
  Step Read(size_t bytes_wanted);

  const Flight& flight() const { return *flight_; }
  const std::shared_ptr<Flight>& flight_ptr() const { return flight_; }

 private:
  FlightReader() = default;
  std::shared_ptr<Flight> flight_;
  uint64_t id_ = 0;
  size_t next_chunk_ = 0;
};

}  // namespace penstock
