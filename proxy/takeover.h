// How a new process takes over from the one that serves: over a unix socket it asks
// for the listening sockets, gets them all, and says when it is ready; only then does
// the old one stop accepting. Whoever breaks off before that has changed nothing.
//
//   new                                  old
//   take 1 keys operator          ──►
//                                 ◄──    listen ADDRESS   + its sockets, a message each
//                                 ◄──    keys BYTES       of session tickets, if it asked for them
//                                 ◄──    operator WORD\nPOOL\nNAME   of each backend that an operator
//                                                         holds (operator_words.h), if it asked
//                                 ◄──    end
//   ready                         ──►    drains, and exits
//
// ADDRESS is that of the old policy file, "admin ADDRESS" for the admin listener; a
// new process may have another file, and closes what it has no use for. Words behind
// "take 1" that an old process does not know it passes over. Messages keep
// their bounds (SOCK_SEQPACKET); sockets travel beside them (SCM_RIGHTS).
//
// Threads: the control thread.
#pragma once

#include <sys/types.h>

#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "proxy/net/listening_socket.h"

namespace penstock {

// One end of such a socket, or none.
class TakeoverChannel {
 public:
  // Sockets in one message; the kernel's own limit is 253.
  static constexpr size_t kSocketsMax = 128;

  TakeoverChannel() = default;
  explicit TakeoverChannel(int descriptor) : descriptor_(descriptor) {}
  TakeoverChannel(TakeoverChannel&& other) noexcept
      : descriptor_(std::exchange(other.descriptor_, -1)) {}
  TakeoverChannel& operator=(TakeoverChannel&& other) noexcept;
  ~TakeoverChannel() { Close(); }

  // Where the next process asks: a socket at `path`, which nobody but this user may
  // open. It takes the place of one that is there.
  static absl::StatusOr<TakeoverChannel> Offer(const std::string& path);
  // NotFound: nobody offers anything at `path`.
  static absl::StatusOr<TakeoverChannel> Ask(const std::string& path);
  // Two ends, the second for a child process.
  static absl::StatusOr<std::pair<TakeoverChannel, TakeoverChannel>> Pair();

  // Of an Offer: who asks; closed: nobody, or not one of ours.
  TakeoverChannel Accept();

  bool open() const { return descriptor_ >= 0; }
  int descriptor() const { return descriptor_; }
  void Close();
  pid_t peer() const;                 // 0: unknown.

  bool Send(std::string_view text, const std::vector<ListeningSocket>& sockets = {});
  struct Message {
    std::string text;                 // Empty: the other end is gone.
    std::vector<ListeningSocket> sockets;
  };
  // Unavailable: nothing yet. Waits for up to five seconds if `wait`.
  absl::StatusOr<Message> Receive(bool wait);

 private:
  int descriptor_ = -1;
};

// Forgets a secret where it lies.
void Wipe(std::string& secret);

// What an operator told the process before about one backend.
struct OperatorWord {
  std::string word;
  std::string pool;
  std::string backend;
};
std::string ToMessage(const OperatorWord& word);

// The new process's side: asks and takes all there is.
struct Taken {
  std::map<std::string, std::vector<ListeningSocket>> sockets;   // By address.
  std::string keys;                   // Of session tickets; to be wiped.
  std::vector<OperatorWord> words;
};
absl::StatusOr<Taken> TakeAll(TakeoverChannel& channel);

// Starts `command` with `channel` as its own end, and tells its process id.
absl::StatusOr<pid_t> StartHeir(const std::vector<std::string>& command, TakeoverChannel channel);
// The end that StartHeir() gave to this process; closed: nobody did.
TakeoverChannel GivenChannel();

}  // namespace penstock
