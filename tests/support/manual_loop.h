// Loops without threads, sockets or a clock: time moves when a test moves it and
// bytes travel when it lets them. Several loops (workers, control, engines) share
// one MemoryNetwork, so a whole proxy with its backends runs inside one test and
// runs the same way every time.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "proxy/net/loop.h"
#include "tests/support/memory_stream.h"

namespace penstock {

class ManualLoop;

class MemoryNetwork {
 public:
  static constexpr MonoTime kStart = 1000 * kSecond;

  // One turn: what loops leave for its beginning, then one delivery to each end of each
  // connection, then what loops do before they wait. False: nothing happened.
  bool Turn();
  // Runs everything that can happen now, in a fixed order.
  void RunUntilIdle();
  // Moves time on, stopping at every deadline on the way.
  void Advance(MonoTime duration);
  MonoTime now() const { return now_; }

  MemoryLinkOptions link_options;  // Of connections made from now on.
  std::map<std::string, std::vector<Address>, std::less<>> names;  // For Resolve.
  std::set<std::string, std::less<>> black_holes;  // Addresses that never answer a dial.
  size_t links() const { return links_.size(); }
  // Connections that were dialled to that address, and the most bytes that are on their
  // way to one of their ends: 0, who dialled, or 1, who accepted.
  size_t LinksTo(std::string_view address) const;
  size_t MostUnderWay(std::string_view address, size_t end) const;
  // Resets every connection that was dialled to that address.
  void ResetAllTo(std::string_view address);

 private:
  void LetWait();
  friend class ManualLoop;
  friend class MemoryDial;
  friend class MemoryListener;
  struct Made {
    std::string address;
    std::shared_ptr<MemoryLink> link;
  };

  MonoTime NextDeadline() const;

  MonoTime now_ = kStart;
  std::vector<ManualLoop*> loops_;
  std::map<std::string, std::vector<class MemoryListener*>, std::less<>> listeners_;
  std::vector<Made> links_;
  size_t next_listener_ = 0;  // Connections go round among listeners of one address.
  uint16_t next_port_ = 40000;
};

class ManualLoop final : public Loop {
 public:
  explicit ManualLoop(MemoryNetwork& network);
  ~ManualLoop() override;

  void Run() override;  // RunUntilIdle of the network.
  void Stop() override { stopped_ = true; }
  bool stopped() const { return stopped_; }
  bool Post(Task task) override;

  MonoTime now() const override { return network_.now(); }
  absl::Time wall_now() const override { return absl::UnixEpoch() + absl::Microseconds(now()); }
  MonoTime ReadClock() const override { return now(); }
  void BeforeWait(Task task) override { before_wait_ = std::move(task); }
  TimerQueue& timers() override { return timers_; }
  DeadlineWheel& deadlines() override { return deadlines_; }
  Dialer& dialer() override { return *dialer_; }

  absl::StatusOr<std::unique_ptr<Listener>> Listen(const Address& address,
                                                   AcceptCallback on_accept) override;
  // At the socket's address, in memory (ListeningSocket::InMemory).
  std::unique_ptr<Listener> Listen(ListeningSocket socket, AcceptCallback on_accept) override;
  // There are no descriptors here: nothing, and never called back.
  std::unique_ptr<ReadableWatch> OnReadable(int descriptor, Task task) override;
  std::unique_ptr<SignalWatch> OnSignal(int signal, Task task) override;
  void Offload(Task work, Task done) override;
  void Resolve(std::string_view host, uint16_t port,
               absl::AnyInvocable<void(absl::StatusOr<std::vector<Address>>)> done) override;

  void Signal(int signal);  // As if the process had received it.

 private:
  friend class MemoryNetwork;
  friend class MemoryDial;
  friend class ManualSignalWatch;
  bool RunPosted();

  MemoryNetwork& network_;
  TimerQueue timers_;
  DeadlineWheel deadlines_;
  std::unique_ptr<Dialer> dialer_;
  Task before_wait_;
  std::vector<Task> posted_;
  std::multimap<int, class ManualSignalWatch*> watches_;
  bool stopped_ = false;
};

}  // namespace penstock
