// How the processes of one group find each other, on one machine or several: the
// first one listens, the others come to it, each says who it is and what it
// serves, and when all are there each gets the group's id (NcclComm's). The
// connections stay, as a line of life and of orders: a process that ends, or is
// silent for silence_seconds, is named to all others within seconds, so that nobody
// waits inside NCCL for the dead; and process 0 tells the others what to do.
//
// Nobody is asked for a password and nothing is encrypted, as in NCCL itself: only
// for networks where nobody else is.
//
// Threads: Send() one, Receive() one, all else any; one thread of its own keeps the line.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace penstock::engine {

struct RendezvousOptions {
  int index = 0;         // Of this process; 0 listens.
  int size = 2;          // Processes in all.
  std::string address;   // Of process 0, a name or an address, and a port: IsPlace().
  std::string facts;     // What all must agree on: model, weights, ranks. One line.
  int64_t offer = 0;     // Of something that all have alike: the smallest is agreed on.
  size_t message_bytes_max = 1 << 20;  // Of what process 0 sends; a longer one loses it.
  double timeout_seconds = 120;  // For all to come.
  double silence_seconds = 5;    // After which a process that says nothing is lost.
  // Who came, is waited for or was turned away, in words; on the thread that meets.
  std::function<void(const std::string&)> note;
};

inline constexpr int kRendezvousMax = 64;      // Processes.
inline constexpr size_t kRendezvousFactsMax = 511;
inline constexpr size_t kRendezvousIdMax = 2048;
inline constexpr size_t kRendezvousMessagesMax = 8;  // Not yet received; one more loses process 0.

// False: `error` names the option, what was found and what is allowed.
bool CheckRendezvous(const RendezvousOptions& options, std::string& error);

class Rendezvous {
 public:
  // Returns when all have come. Process 0 brings `id`, the others get it. Null with
  // the reason; a wait ends once `stop` is true, which must live as long as this.
  static std::unique_ptr<Rendezvous> Meet(const RendezvousOptions& options, std::string& id,
                                          const std::atomic<bool>& stop, std::string& error);
  ~Rendezvous();  // Leaves: the others are told so.

  // Tells the others why this process is about to end; they lose it with these words.
  void Leave(const std::string& why);

  int64_t agreed() const;  // The smallest offer.

  // False once a process is lost; `error` says which and how.
  bool Healthy(std::string& error) const;
  // True: one is lost, or was within so long; `error` as above.
  bool LostWithin(double seconds, std::string& error) const;

  // `lost` is called once, with what Healthy() says, on the line's own thread, or here
  // and now where somebody is lost already.
  void OnLost(std::function<void(const std::string&)> lost);

  // Process 0: to each of the others, in the order sent. Waits while one of them takes
  // nothing. False: somebody is lost, or Meet()'s `stop` is true.
  bool Send(std::span<const std::byte> message);

  // The others: the next message, waited for at most `seconds`.
  enum class Received { kMessage, kNothing, kLost };
  Received Receive(std::vector<std::byte>& message, double seconds);

 private:
  class State;
  explicit Rendezvous(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace penstock::engine
