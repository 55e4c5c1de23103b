// A star: process 0 has a connection to each other one; it hears of every death
// and passes it on. frames.h says what goes over it.
#include "backend-engine/parallel/rendezvous.h"

#include <poll.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <mutex>
#include <thread>
#include <type_traits>
#include <utility>

#include "backend-engine/parallel/frames.h"

namespace penstock::engine {
namespace {

constexpr int kTickMs = 100;
constexpr int kStrangersMax = 16;  // Connections at once that have not said who they are.
constexpr size_t kTextMax = 2048;  // Of a reason.
constexpr int kFramesAtOnce = 64;  // Of one peer, before the others are looked at.

enum Word : uint32_t { kHello = 1, kWelcome, kRefused, kAlive, kLost, kMessage };

struct Hello {
  int32_t index = 0, size = 0;
  int64_t offer = 0;
  char facts[kRendezvousFactsMax + 1] = {};
};
struct Welcome {  // And the id after it.
  int64_t agreed = 0;
};
static_assert(std::is_trivially_copyable_v<Hello> && std::is_trivially_copyable_v<Welcome>);

using Clock = std::chrono::steady_clock;
double SecondsSince(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

std::string StringOf(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// Words of another process, for a log or a terminal.
std::string Plain(std::string text) {
  for (char& c : text) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '?';
  }
  return text;
}

std::string Name(int index) { return "process " + std::to_string(index); }

// A connection to another process.
struct Peer {
  using Read = FrameSocket::Read;

  FrameSocket socket;
  std::string from;  // Its address, as the system has it.
  int index = -1;    // Not known before its Hello.
  int64_t offer = 0;
  Clock::time_point heard = Clock::now();
  uint32_t word = 0;
  std::vector<std::byte> bytes;  // Of the frame that Take() has seen whole.

  Read Take(size_t bytes_max) { return socket.Take(bytes_max, word, bytes); }
};

bool AtOnce() { return true; }  // Gives up: for what fits into a socket's own buffer.

}  // namespace

bool CheckRendezvous(const RendezvousOptions& options, std::string& error) {
  if (options.size < 2 || options.size > kRendezvousMax) {
    error = "a group of " + std::to_string(options.size) + " processes; 2 to " +
            std::to_string(kRendezvousMax) + " can meet";
  } else if (options.index < 0 || options.index >= options.size) {
    error = "process " + std::to_string(options.index) + " of " + std::to_string(options.size) +
            "; they are counted from 0";
  } else if (!IsPlace(options.address)) {
    error = "'" + options.address +
            "' is no place to meet at; an address or a name and a port are, like 10.0.0.1:7100, "
            "[fd00::1]:7100 or head:7100";
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
      : options_(options), stop_(stop), agreed_(options.offer) {}
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

  int64_t agreed() const { return agreed_; }

  bool Healthy(std::string& error) const {
    const std::lock_guard lock(mutex_);
    if (lost_.empty()) return true;
    error = lost_;
    return false;
  }

  bool LostWithin(double seconds, std::string& error) const {
    std::unique_lock lock(mutex_);
    come_.wait_for(lock, std::chrono::duration<double>(seconds), [this] { return !lost_.empty(); });
    if (!lost_.empty()) error = lost_;
    return !lost_.empty();
  }

  void OnLost(std::function<void(const std::string&)> lost) {
    std::string why;
    {
      const std::lock_guard lock(mutex_);
      if (lost_.empty()) {
        on_lost_ = std::move(lost);
        return;
      }
      why = lost_;
    }
    lost(why);
  }

  void Leave(const std::string& why) {
    std::string last = Name(options_.index) + " has failed: " + why;
    last.resize(std::min(last.size(), kTextMax));
    {
      const std::lock_guard lock(mutex_);
      if (!lost_.empty()) return;
      lost_ = last;
      on_lost_ = {};
      come_.notify_all();
    }
    SayLost(last);
  }

  bool Send(std::span<const std::byte> message) {
    const std::lock_guard sending(sending_);
    const auto give_up = [this] { return leaving_ || stop_.load(std::memory_order_acquire) || IsLost(); };
    for (Peer& peer : peers_) {
      // A connection that broke is heard of by the thread of the line, which says so to all.
      if (give_up() || !peer.socket.Send(kMessage, message, give_up)) return false;
    }
    return true;
  }

  Received Receive(std::vector<std::byte>& message, double seconds) {
    std::unique_lock lock(mutex_);
    come_.wait_for(lock, std::chrono::duration<double>(seconds),
                   [this] { return !messages_.empty() || !lost_.empty(); });
    // What was sent before the end is not done either: the end comes first.
    if (!lost_.empty()) return Received::kLost;
    if (messages_.empty()) return Received::kNothing;
    message.swap(messages_.front());
    messages_.pop_front();
    return Received::kMessage;
  }

 private:
  bool Waits(std::string& error) const {
    if (stop_.load(std::memory_order_acquire)) {
      error = "stopped while waiting for other processes";
    } else if (SecondsSince(began_) > options_.timeout_seconds) {
      error = "not all processes met at " + options_.address + " within " +
              std::to_string(static_cast<int>(options_.timeout_seconds)) + " s" +
              (options_.index == 0 ? "; missing:" + Missing() : seen_.empty() ? "" : "; " + seen_);
    } else {
      return true;
    }
    return false;
  }

  std::string Missing() const {
    std::string text;
    for (int index = 1; index < options_.size; ++index) {
      if (!Has(index)) text += " " + std::to_string(index);
    }
    return text;
  }

  bool Has(int index) const {
    return std::any_of(peers_.begin(), peers_.end(),
                       [index](const Peer& peer) { return peer.index == index; });
  }

  void Note(const std::string& text) const {
    if (options_.note) options_.note(text);
  }

  // --- process 0

  bool Gather(const std::string& id, std::string& error) {
    const FrameSocket door = Listen(error);
    if (!door.open()) return false;
    while (peers_.size() + 1 < static_cast<size_t>(options_.size)) {
      if (!Waits(error)) return Refuse(error);
      const bool room = strangers_.size() < kStrangersMax;
      std::vector<pollfd> polled = {{room ? door.file() : -1, POLLIN, 0}};
      for (const Peer& peer : strangers_) polled.push_back({peer.socket.file(), POLLIN, 0});
      for (const Peer& peer : peers_) polled.push_back({peer.socket.file(), POLLIN, 0});
      (void)poll(polled.data(), polled.size(), kTickMs);
      if (!TakeStrangers(error)) return Refuse(error);
      for (Peer& peer : peers_) {
        if (peer.Take(0) == Peer::Read::kNothing) continue;
        error = Name(peer.index) + " has left while the others were waited for";
        return Refuse(error);
      }
      while (strangers_.size() < kStrangersMax) {
        InetAddress from;
        FrameSocket come = door.Accept(&from);
        if (!come.open()) {
          if (errno != EAGAIN) (void)poll(nullptr, 0, kTickMs);  // No descriptor left, say.
          break;
        }
        strangers_.push_back({.socket = std::move(come), .from = from.Text()});
      }
    }
    return WelcomeAll(id, error);
  }

  // At the first address of the place that is this machine's.
  FrameSocket Listen(std::string& error) const {
    std::string why;
    for (const InetAddress& address : Resolve(options_.address, why)) {
      FrameSocket door = FrameSocket::ListenAt(address, kRendezvousMax);
      if (door.open()) {
        const std::string text = address.Text();
        Note("waiting at " + options_.address + (text == options_.address ? "" : " (" + text + ")") +
             (address.loopback() ? ", which only this machine can reach," : "") + " for processes" +
             Missing());
        return door;
      }
      why = address.Text() + ": " +
            (errno == EADDRNOTAVAIL ? "this machine, process 0's, has no such address" : std::strerror(errno));
    }
    error = "cannot listen at " + options_.address + ": " + why;
    return FrameSocket();
  }

  bool WelcomeAll(const std::string& id, std::string& error) {
    for (const Peer& peer : peers_) agreed_ = std::min(agreed_, peer.offer);
    std::vector<std::byte> welcome;
    Append(Welcome{agreed_}, welcome);
    const auto bytes = std::as_bytes(std::span(id));
    welcome.insert(welcome.end(), bytes.begin(), bytes.end());
    for (Peer& peer : peers_) {
      if (peer.socket.Send(kWelcome, welcome, AtOnce)) continue;
      error = Name(peer.index) + " has left as the group began";
      return Refuse(error);
    }
    return true;
  }

  bool Refuse(const std::string& why) {
    for (Peer& peer : peers_) (void)peer.socket.Send(kRefused, why, AtOnce);
    return false;
  }

  // Those that say who they are become peers; who says nothing of use is let go, and
  // so is who says nothing at all. False: one that belongs to us does not fit.
  bool TakeStrangers(std::string& error) {
    for (size_t i = 0; i < strangers_.size();) {
      const Peer::Read read = strangers_[i].Take(sizeof(Hello));
      const bool silent = SecondsSince(strangers_[i].heard) > options_.silence_seconds;
      if (read == Peer::Read::kNothing && !silent) {
        ++i;
        continue;
      }
      Peer peer = std::move(strangers_[i]);
      strangers_.erase(strangers_.begin() + static_cast<std::ptrdiff_t>(i));
      if (read != Peer::Read::kWhole || peer.word != kHello || peer.bytes.size() != sizeof(Hello)) {
        TurnAway(peer, read == Peer::Read::kNothing);
        continue;
      }
      Hello hello;
      std::memcpy(&hello, peer.bytes.data(), sizeof hello);
      if (!Fits(hello, error)) {
        (void)peer.socket.Send(kRefused, error, AtOnce);
        return false;
      }
      peer.index = hello.index;
      peer.offer = hello.offer;
      const std::string from = peer.from;
      peers_.push_back(std::move(peer));
      const std::string missing = Missing();
      Note(Name(hello.index) + " has come from " + from +
           (missing.empty() ? "; all are here" : "; missing:" + missing));
    }
    return true;
  }

  void TurnAway(const Peer& peer, bool silent) const {
    Note(peer.from + " was turned away: " +
         (silent ? "it did not say who it is within " +
                       std::to_string(static_cast<int>(options_.silence_seconds)) + " s"
                 : "it does not speak as a process of this group does (another program, or "
                   "another version of penstock-engine)"));
    peer.socket.EndPlainly("penstock-engine: processes of one engine meet here, of the same "
                          "version; the API is at --listen of process 0\n");
  }

  bool Fits(const Hello& hello, std::string& error) const {
    const std::string facts(hello.facts, strnlen(hello.facts, sizeof hello.facts));
    if (hello.size != options_.size) {
      error = "one process counts " + std::to_string(hello.size) + " in the group, process 0 " +
              std::to_string(options_.size);
    } else if (hello.index < 1 || hello.index >= options_.size || Has(hello.index)) {
      error = "two processes say that they are " + Name(hello.index) + " of " +
              std::to_string(options_.size);
    } else if (facts != options_.facts) {
      error = Name(hello.index) + " serves '" + Plain(facts) + "', process 0 '" + options_.facts + "'";
    } else {
      return true;
    }
    return false;
  }

  // --- the others

  // A name is asked for each time: it may be known, or be somebody else's, later.
  FrameSocket Dial() {
    for (const InetAddress& address : Resolve(options_.address, seen_)) {
      FrameSocket made = FrameSocket::Dial(address, 10 * kTickMs);
      if (made.open()) return made;
      seen_ = address.Text() + ": " + std::strerror(errno);
    }
    return FrameSocket();
  }

  bool Come(std::string& id, std::string& error) {
    Note("looking for process 0 at " + options_.address);
    Peer first;
    while (!(first.socket = Dial()).open()) {
      if (!Waits(error)) return false;
      (void)poll(nullptr, 0, kTickMs);  // Nobody is hammered.
    }
    Hello hello;
    hello.index = options_.index;
    hello.size = options_.size;
    hello.offer = options_.offer;
    std::memcpy(hello.facts, options_.facts.data(), options_.facts.size());
    const bool said = first.socket.Send(kHello, std::as_bytes(std::span(&hello, 1)), AtOnce);
    for (Peer::Read read = said ? Peer::Read::kNothing : Peer::Read::kEnded;
         read != Peer::Read::kWhole; read = first.Take(sizeof(Welcome) + kRendezvousIdMax)) {
      if (read != Peer::Read::kNothing) {
        error = "process 0 at " + options_.address +
                (read == Peer::Read::kEnded
                     ? " has ended before the group was complete, or is not one of us"
                     : " is another program, or another version of penstock-engine");
        return false;
      }
      if (!Waits(error)) return false;
      pollfd polled{first.socket.file(), POLLIN, 0};
      (void)poll(&polled, 1, kTickMs);
    }
    if (first.word != kWelcome || first.bytes.size() < sizeof(Welcome)) {
      error = Plain(StringOf(std::span(first.bytes).first(std::min(first.bytes.size(), kTextMax))));
      return false;
    }
    Welcome welcome;
    std::memcpy(&welcome, first.bytes.data(), sizeof welcome);
    agreed_ = welcome.agreed;
    id = StringOf(std::span(first.bytes).subspan(sizeof welcome));
    first.index = 0;
    peers_.push_back(std::move(first));
    return true;
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
      // Whoever is being sent a message hears from us anyway.
      const std::unique_lock sending(sending_, std::try_to_lock);
      for (Peer& peer : peers_) {
        if (sending && peer.socket.HasRoom()) (void)peer.socket.Send(kAlive, "", AtOnce);
      }
    }
  }

  bool Hear(Peer& peer) {
    const size_t bytes_max =
        options_.index == 0 ? kTextMax : std::max(kTextMax, options_.message_bytes_max);
    for (int frames = 0; frames < kFramesAtOnce; ++frames) {
      const Peer::Read read = peer.Take(bytes_max);
      if (read == Peer::Read::kNothing) break;
      if (read == Peer::Read::kEnded) return Lose(Name(peer.index) + " has ended");
      if (read != Peer::Read::kWhole) {
        return Lose(Name(peer.index) + " says what no process of this group would");
      }
      if (peer.word == kLost) {
        return Lose(peer.bytes.empty() ? Name(peer.index) + " has ended" : Plain(StringOf(peer.bytes)));
      }
      if (peer.word == kMessage && !Put(peer)) return false;
      peer.heard = Clock::now();
    }
    if (SecondsSince(peer.heard) <= options_.silence_seconds) return true;
    return Lose(Name(peer.index) + " has been silent for more than " +
                std::to_string(static_cast<int>(options_.silence_seconds)) + " s");
  }

  bool Put(Peer& peer) {
    if (options_.index == 0) return Lose(Name(peer.index) + " gives orders, as only process 0 may");
    {
      const std::lock_guard lock(mutex_);
      if (messages_.size() < kRendezvousMessagesMax) {
        messages_.push_back(std::exchange(peer.bytes, {}));
        come_.notify_all();
        return true;
      }
    }
    return Lose("process 0 has sent more than " + std::to_string(kRendezvousMessagesMax) +
                " messages that nobody took");
  }

  bool IsLost() const {
    const std::lock_guard lock(mutex_);
    return !lost_.empty();
  }

  bool Lose(const std::string& why) {
    std::function<void(const std::string&)> on_lost;
    {
      const std::lock_guard lock(mutex_);
      if (!lost_.empty()) return false;
      lost_ = why;
      on_lost = std::move(on_lost_);
      come_.notify_all();
    }
    SayLost(why);
    if (on_lost) on_lost(why);
    return false;
  }

  void SayLost(const std::string& why) {
    const std::lock_guard sending(sending_);  // Whoever sends gives up now.
    for (Peer& peer : peers_) (void)peer.socket.Send(kLost, why, AtOnce);
  }

  const RendezvousOptions options_;
  const std::atomic<bool>& stop_;
  const Clock::time_point began_ = Clock::now();
  int64_t agreed_;
  std::string seen_;  // Why process 0 was not reached, the last time.
  std::vector<Peer> strangers_;  // Have not said who they are.
  std::vector<Peer> peers_;      // Process 0: all others; they: process 0.
  std::thread thread_;
  std::atomic<bool> leaving_{false};
  std::mutex sending_;           // Of every peer's way out, once the line is kept.
  mutable std::mutex mutex_;     // Of what follows.
  mutable std::condition_variable come_;
  std::deque<std::vector<std::byte>> messages_;
  std::function<void(const std::string&)> on_lost_;
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
void Rendezvous::Leave(const std::string& why) { state_->Leave(why); }
int64_t Rendezvous::agreed() const { return state_->agreed(); }
bool Rendezvous::Healthy(std::string& error) const { return state_->Healthy(error); }
bool Rendezvous::LostWithin(double seconds, std::string& error) const {
  return state_->LostWithin(seconds, error);
}
void Rendezvous::OnLost(std::function<void(const std::string&)> lost) {
  state_->OnLost(std::move(lost));
}
bool Rendezvous::Send(std::span<const std::byte> message) { return state_->Send(message); }
Rendezvous::Received Rendezvous::Receive(std::vector<std::byte>& message, double seconds) {
  return state_->Receive(message, seconds);
}

}  // namespace penstock::engine
