// Messages have a fixed size and begin with a magic number, which also tells other
// programs' bytes and another version's apart. A star: process 0 has a connection
// to each other one; it hears of every death and passes it on.
#include "backend-engine/parallel/rendezvous.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstring>
#include <mutex>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

namespace penstock::engine {
namespace {

constexpr uint64_t kMagic = 0x315652544e45500a;  // Counts versions of the messages, too.
constexpr int kTickMs = 100;
constexpr int kStrangersMax = 16;  // Connections at once that have not said who they are.

struct Hello {
  uint64_t magic = kMagic;
  int32_t index = 0, size = 0;
  char facts[kRendezvousFactsMax + 1] = {};
};
enum class Word : uint32_t { kWelcome = 1, kRefused, kAlive, kLost };
struct Message {
  uint64_t magic = kMagic;
  Word word = Word::kAlive;
  uint32_t id_bytes = 0;
  char text[kRendezvousFactsMax + 1] = {};
  char id[kRendezvousIdMax] = {};
};
static_assert(std::is_trivially_copyable_v<Hello> && std::is_trivially_copyable_v<Message>);

using Clock = std::chrono::steady_clock;
double SecondsSince(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

template <size_t kSize>
void Put(const std::string& text, char (&to)[kSize]) {
  std::memcpy(to, text.data(), std::min(text.size(), kSize - 1));
}
template <size_t kSize>
std::string Get(const char (&from)[kSize]) {
  return std::string(from, strnlen(from, kSize));
}

bool ParseAddress(const std::string& text, sockaddr_in& address) {
  const size_t colon = text.rfind(':');
  if (colon == std::string::npos) return false;
  uint16_t port = 0;
  const char* end = text.data() + text.size();
  const auto [stop, failed] = std::from_chars(text.data() + colon + 1, end, port);
  if (failed != std::errc() || stop != end || port == 0) return false;
  address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  return inet_pton(AF_INET, text.substr(0, colon).c_str(), &address.sin_addr) == 1;
}

class Socket {
 public:
  explicit Socket(int file = -1) : file_(file) {}
  Socket(Socket&& other) noexcept : file_(std::exchange(other.file_, -1)) {}
  Socket& operator=(Socket&& other) noexcept {
    std::swap(file_, other.file_);
    return *this;
  }
  ~Socket() {
    if (file_ >= 0) close(file_);
  }
  int file() const { return file_; }

 private:
  int file_;
};

Socket NewSocket() {
  Socket made(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  const int on = 1;
  if (made.file() >= 0) setsockopt(made.file(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  return made;
}

// A connection to another process, and what has come of its next message.
struct Peer {
  Socket socket;
  int index = -1;  // Not known before its Hello.
  Clock::time_point heard = Clock::now();
  size_t got = 0;
  char bytes[sizeof(Message) > sizeof(Hello) ? sizeof(Message) : sizeof(Hello)] = {};

  enum class Read { kNothing, kWhole, kEnded };
  template <typename T>
  Read Take(T& message) {
    while (got < sizeof message) {
      const ssize_t count = recv(socket.file(), bytes + got, sizeof message - got, 0);
      if (count == 0) return Read::kEnded;
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) return errno == EAGAIN ? Read::kNothing : Read::kEnded;
      got += static_cast<size_t>(count);
    }
    std::memcpy(&message, bytes, sizeof message);
    got = 0;
    return message.magic == kMagic ? Read::kWhole : Read::kEnded;
  }

  // Small messages fit into the socket's own buffer, or the peer has stopped reading.
  template <typename T>
  bool Send(const T& message) {
    return send(socket.file(), &message, sizeof message, MSG_NOSIGNAL) ==
           static_cast<ssize_t>(sizeof message);
  }
};

Message Says(Word word, const std::string& text) {
  Message message;
  message.word = word;
  Put(text, message.text);
  return message;
}

std::string Name(int index) { return "process " + std::to_string(index); }

}  // namespace

bool CheckRendezvous(const RendezvousOptions& options, std::string& error) {
  sockaddr_in address;
  if (options.size < 2 || options.size > kRendezvousMax) {
    error = "a group of " + std::to_string(options.size) + " processes; 2 to " +
            std::to_string(kRendezvousMax) + " can meet";
  } else if (options.index < 0 || options.index >= options.size) {
    error = "process " + std::to_string(options.index) + " of " + std::to_string(options.size) +
            "; they are counted from 0";
  } else if (!ParseAddress(options.address, address)) {
    error = "'" + options.address +
            "' is no address to meet at; an IPv4 address and a port are, like 10.0.0.1:7100";
  } else if (options.facts.size() > kRendezvousFactsMax ||
             options.facts.find('\0') != std::string::npos) {
    error = "the facts of the group are " + std::to_string(options.facts.size()) +
            " bytes; at most " + std::to_string(kRendezvousFactsMax) + " of text";
  } else if (options.timeout_seconds <= 0 || options.silence_seconds <= 0) {
    error = "times to wait for other processes must be more than 0";
  } else {
    return true;
  }
  return false;
}

class Rendezvous::State {
 public:
  State(const RendezvousOptions& options, const std::atomic<bool>& stop)
      : options_(options), stop_(stop) {
    (void)ParseAddress(options.address, address_);
  }
  ~State() {
    leaving_ = true;
    if (thread_.joinable()) thread_.join();
  }

  bool Meet(std::string& id, std::string& error) {
    if (!(options_.index == 0 ? Gather(id, error) : Come(id, error))) return false;
    for (Peer& peer : peers_) peer.heard = Clock::now();
    thread_ = std::thread([this] { Keep(); });
    return true;
  }

  bool Healthy(std::string& error) const {
    const std::lock_guard lock(mutex_);
    if (lost_.empty()) return true;
    error = lost_;
    return false;
  }

 private:
  bool Waits(std::string& error) const {
    if (stop_.load(std::memory_order_acquire)) {
      error = "stopped while waiting for other processes";
    } else if (SecondsSince(began_) > options_.timeout_seconds) {
      error = "not all processes met at " + options_.address + " within " +
              std::to_string(static_cast<int>(options_.timeout_seconds)) + " s" + Missing();
    } else {
      return true;
    }
    return false;
  }

  std::string Missing() const {
    if (options_.index != 0) return "";
    std::string text = "; missing:";
    for (int index = 1; index < options_.size; ++index) {
      if (!Has(index)) text += " " + std::to_string(index);
    }
    return text;
  }

  bool Has(int index) const {
    return std::any_of(peers_.begin(), peers_.end(),
                       [index](const Peer& peer) { return peer.index == index; });
  }

  // --- process 0

  bool Gather(const std::string& id, std::string& error) {
    const Socket door = NewSocket();
    const int on = 1;
    setsockopt(door.file(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    const auto* address = reinterpret_cast<const sockaddr*>(&address_);
    if (door.file() < 0 || bind(door.file(), address, sizeof address_) != 0 ||
        listen(door.file(), kRendezvousMax) != 0) {
      error = "cannot listen at " + options_.address + ": " + std::strerror(errno);
      return false;
    }
    while (peers_.size() + 1 < static_cast<size_t>(options_.size)) {
      if (!Waits(error)) return Refuse(error);
      std::vector<pollfd> polled = {{door.file(), POLLIN, 0}};
      for (const Peer& peer : strangers_) polled.push_back({peer.socket.file(), POLLIN, 0});
      for (const Peer& peer : peers_) polled.push_back({peer.socket.file(), POLLIN, 0});
      (void)poll(polled.data(), polled.size(), kTickMs);
      if (!TakeStrangers(error)) return Refuse(error);
      for (Peer& peer : peers_) {
        Message unexpected;
        if (peer.Take(unexpected) == Peer::Read::kNothing) continue;
        error = Name(peer.index) + " has left while the others were waited for";
        return Refuse(error);
      }
      while (strangers_.size() < kStrangersMax) {
        Socket come(accept4(door.file(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
        if (come.file() < 0) break;
        strangers_.push_back({.socket = std::move(come)});
      }
    }
    Message welcome = Says(Word::kWelcome, "");
    welcome.id_bytes = static_cast<uint32_t>(id.size());
    std::memcpy(welcome.id, id.data(), id.size());
    for (Peer& peer : peers_) {
      if (peer.Send(welcome)) continue;
      error = Name(peer.index) + " has left as the group began";
      return Refuse(error);
    }
    return true;
  }

  bool Refuse(const std::string& why) {
    for (Peer& peer : peers_) (void)peer.Send(Says(Word::kRefused, why));
    return false;
  }

  // Those that say who they are become peers; who says nothing of use is let go, and
  // so is who says nothing at all. False: one that belongs to us does not fit.
  bool TakeStrangers(std::string& error) {
    for (size_t i = 0; i < strangers_.size();) {
      Hello hello;
      const Peer::Read read = strangers_[i].Take(hello);
      const bool silent = SecondsSince(strangers_[i].heard) > options_.silence_seconds;
      if (read == Peer::Read::kNothing && !silent) {
        ++i;
        continue;
      }
      Peer peer = std::move(strangers_[i]);
      strangers_.erase(strangers_.begin() + static_cast<std::ptrdiff_t>(i));
      if (read != Peer::Read::kWhole) continue;
      if (!Fits(hello, error)) {
        (void)peer.Send(Says(Word::kRefused, error));
        return false;
      }
      peer.index = hello.index;
      peers_.push_back(std::move(peer));
    }
    return true;
  }

  bool Fits(const Hello& hello, std::string& error) const {
    const std::string facts = Get(hello.facts);
    if (hello.size != options_.size) {
      error = "one process counts " + std::to_string(hello.size) + " in the group, process 0 " +
              std::to_string(options_.size);
    } else if (hello.index < 1 || hello.index >= options_.size || Has(hello.index)) {
      error = "two processes say that they are " + Name(hello.index) + " of " +
              std::to_string(options_.size);
    } else if (facts != options_.facts) {
      error = Name(hello.index) + " serves '" + facts + "', process 0 '" + options_.facts + "'";
    } else {
      return true;
    }
    return false;
  }

  // --- the others

  bool Come(std::string& id, std::string& error) {
    Peer first;
    while (!Connect(first)) {
      if (!Waits(error)) return false;
    }
    Hello hello;
    hello.index = options_.index;
    hello.size = options_.size;
    Put(options_.facts, hello.facts);
    Message answer;
    for (Peer::Read read = first.Send(hello) ? Peer::Read::kNothing : Peer::Read::kEnded;
         read != Peer::Read::kWhole; read = first.Take(answer)) {
      if (read == Peer::Read::kEnded) {
        error = "process 0 at " + options_.address + " has ended before the group was complete, "
                "or is not one of us";
        return false;
      }
      if (!Waits(error)) return false;
      pollfd polled{first.socket.file(), POLLIN, 0};
      (void)poll(&polled, 1, kTickMs);
    }
    if (answer.word != Word::kWelcome || answer.id_bytes > kRendezvousIdMax) {
      error = Get(answer.text);
      return false;
    }
    id.assign(answer.id, answer.id_bytes);
    first.index = 0;
    peers_.push_back(std::move(first));
    return true;
  }

  // One try; what fails takes a tick, so that nobody is hammered.
  bool Connect(Peer& peer) const {
    peer.socket = NewSocket();
    const auto* address = reinterpret_cast<const sockaddr*>(&address_);
    int failed = connect(peer.socket.file(), address, sizeof address_) == 0 ? 0 : errno;
    if (failed == EINPROGRESS) {
      pollfd polled{peer.socket.file(), POLLOUT, 0};
      socklen_t size = sizeof failed;
      failed = ETIMEDOUT;
      if (poll(&polled, 1, 10 * kTickMs) == 1) {
        getsockopt(peer.socket.file(), SOL_SOCKET, SO_ERROR, &failed, &size);
      }
    }
    if (failed == 0) return true;
    (void)poll(nullptr, 0, kTickMs);
    return false;
  }

  // --- the line of life

  void Keep() {
    auto spoke = Clock::now();
    while (!leaving_) {
      std::vector<pollfd> polled;
      for (const Peer& peer : peers_) polled.push_back({peer.socket.file(), POLLIN, 0});
      (void)poll(polled.data(), polled.size(), kTickMs);
      for (Peer& peer : peers_) {
        if (!Hear(peer)) return;
      }
      if (SecondsSince(spoke) < options_.silence_seconds / 4) continue;
      spoke = Clock::now();
      for (Peer& peer : peers_) (void)peer.Send(Says(Word::kAlive, ""));
    }
  }

  bool Hear(Peer& peer) {
    while (true) {
      Message message;
      const Peer::Read read = peer.Take(message);
      if (read == Peer::Read::kNothing) break;
      if (read == Peer::Read::kEnded) return Lose(Name(peer.index) + " has ended");
      if (message.word == Word::kLost) return Lose(Get(message.text));
      peer.heard = Clock::now();
    }
    if (SecondsSince(peer.heard) <= options_.silence_seconds) return true;
    return Lose(Name(peer.index) + " has been silent for more than " +
                std::to_string(static_cast<int>(options_.silence_seconds)) + " s");
  }

  bool Lose(const std::string& why) {
    for (Peer& peer : peers_) (void)peer.Send(Says(Word::kLost, why));
    const std::lock_guard lock(mutex_);
    lost_ = why;
    return false;
  }

  const RendezvousOptions options_;
  const std::atomic<bool>& stop_;
  const Clock::time_point began_ = Clock::now();
  sockaddr_in address_{};
  std::vector<Peer> strangers_;  // Have not said who they are.
  std::vector<Peer> peers_;      // Process 0: all others; they: process 0.
  std::thread thread_;
  std::atomic<bool> leaving_{false};
  mutable std::mutex mutex_;
  std::string lost_;
};

std::unique_ptr<Rendezvous> Rendezvous::Meet(const RendezvousOptions& options, std::string& id,
                                             const std::atomic<bool>& stop, std::string& error) {
  if (!CheckRendezvous(options, error)) return nullptr;
  if (options.index == 0 && (id.empty() || id.size() > kRendezvousIdMax)) {
    error = "process 0 brings an id of 1 to " + std::to_string(kRendezvousIdMax) + " bytes";
    return nullptr;
  }
  auto state = std::make_unique<State>(options, stop);
  if (!state->Meet(id, error)) return nullptr;
  return std::unique_ptr<Rendezvous>(new Rendezvous(std::move(state)));
}

Rendezvous::Rendezvous(std::unique_ptr<State> state) : state_(std::move(state)) {}
Rendezvous::~Rendezvous() = default;
bool Rendezvous::Healthy(std::string& error) const { return state_->Healthy(error); }

}  // namespace penstock::engine
