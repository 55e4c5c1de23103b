#include "tests/support/manual_loop.h"

#include <algorithm>
#include <utility>

#include "proxy/base/check.h"
#include "proxy/base/status.h"

namespace penstock {
namespace {
constexpr int kTurnsMax = 10'000'000;   // More in one instant is a loop that never ends.
}

class MemoryListener final : public Listener {
 public:
  MemoryListener(MemoryNetwork& network, Address address, Loop::AcceptCallback on_accept)
      : network_(network), address_(std::move(address)), on_accept_(std::move(on_accept)) {
    network_.listeners_[address_.text].push_back(this);
  }
  ~MemoryListener() override {
    auto& all = network_.listeners_[address_.text];
    all.erase(std::find(all.begin(), all.end(), this));
    if (all.empty()) network_.listeners_.erase(address_.text);
  }
  const Address& address() const override { return address_; }
  void AcceptWaiting() override { Resume(); }
  void Pause() override { paused_ = true; }
  void Resume() override {
    paused_ = false;
    while (!paused_ && !waiting_.empty()) {
      std::unique_ptr<Stream> stream = std::move(waiting_.front());
      waiting_.erase(waiting_.begin());
      on_accept_(std::move(stream));
    }
  }
  void Accept(std::unique_ptr<Stream> stream) {
    if (paused_) return waiting_.push_back(std::move(stream));
    on_accept_(std::move(stream));
  }

 private:
  MemoryNetwork& network_;
  const Address address_;
  Loop::AcceptCallback on_accept_;
  std::vector<std::unique_ptr<Stream>> waiting_;
  bool paused_ = false;
};

// Succeeds or fails in the next step of its loop; a black hole keeps it until its deadline.
class MemoryDial final : public Dialer::Pending {
 public:
  MemoryDial(ManualLoop& loop, const Address& address, MonoTime timeout, Dialer::Callback callback)
      : loop_(loop),
        address_(address),
        callback_(std::move(callback)),
        deadline_(loop.deadlines(), [](void* self) { static_cast<MemoryDial*>(self)->OnTimeout(); },
                  this) {
    deadline_.Set(loop.now() + timeout);
    if (loop.network_.black_holes.contains(address.text)) return;
    loop.posted_.push_back([this, alive = std::weak_ptr<bool>(alive_)] {
      if (!alive.expired()) Connect();
    });
  }

 private:
  void Connect() {
    MemoryNetwork& network = loop_.network_;
    const auto found = network.listeners_.find(address_.text);
    if (found == network.listeners_.end()) {
      return Finish(absl::UnavailableError(A(address_.text + ": connect: connection refused")));
    }
    MemoryListener& listener = *found->second[network.next_listener_++ % found->second.size()];
    auto link = std::make_shared<MemoryLink>(network.link_options);
    if (network.link_options.seed != 0) ++network.link_options.seed;
    network.links_.push_back({address_.text, link});
    const std::string from = "127.0.0.1:" + std::to_string(network.next_port_++);
    auto near = std::make_unique<MemoryStream>(link, 0, address_.text);  // Who accepts may speak first.
    listener.Accept(std::make_unique<MemoryStream>(link, 1, from));
    Finish(std::move(near));
  }

  void OnTimeout() {
    Finish(absl::DeadlineExceededError(A(address_.text + ": no connection in time")));
  }

  void Finish(absl::StatusOr<std::unique_ptr<Stream>> result) {
    deadline_.Clear();
    Dialer::Callback callback = std::move(callback_);
    callback(std::move(result));
  }

  ManualLoop& loop_;
  const Address address_;
  Dialer::Callback callback_;
  Deadline deadline_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

class MemoryDialer final : public Dialer {
 public:
  explicit MemoryDialer(ManualLoop& loop) : loop_(loop) {}
  std::unique_ptr<Pending> Dial(const Address& address, MonoTime timeout,
                                Callback callback) override {
    return std::make_unique<MemoryDial>(loop_, address, timeout, std::move(callback));
  }

 private:
  ManualLoop& loop_;
};

class ManualSignalWatch final : public Loop::SignalWatch {
 public:
  ManualSignalWatch(ManualLoop& loop, int signal, Loop::Task task)
      : loop_(loop), task_(std::move(task)), place_(loop.watches_.emplace(signal, this)) {}
  ~ManualSignalWatch() override { loop_.watches_.erase(place_); }
  void Fire() { task_(); }

 private:
  ManualLoop& loop_;
  Loop::Task task_;
  std::multimap<int, ManualSignalWatch*>::iterator place_;
};

bool MemoryNetwork::Turn() {
  bool moved = false;
  LetWait();  // For what a test has done since.
  for (size_t i = 0; i < loops_.size(); ++i) moved |= loops_[i]->RunPosted();
  for (size_t i = 0; i < links_.size(); ++i) {
    const std::shared_ptr<MemoryLink> link = links_[i].link;
    moved |= link->Step();
  }
  LetWait();
  std::erase_if(links_, [](const Made& made) { return made.link->gone(); });
  return moved;
}

void MemoryNetwork::LetWait() {
  for (ManualLoop* const loop : loops_) {
    if (loop->before_wait_) loop->before_wait_();
  }
}

void MemoryNetwork::RunUntilIdle() {
  for (int turns = 0; Turn(); ++turns) CHECK(turns < kTurnsMax, "something never comes to rest");
}

MonoTime MemoryNetwork::NextDeadline() const {
  MonoTime next = kNever;
  for (const ManualLoop* loop : loops_) {
    next = std::min({next, loop->timers_.NextDeadline().value_or(kNever), loop->deadlines_.NextLook()});
  }
  return next;
}

void MemoryNetwork::Advance(MonoTime duration) {
  const MonoTime end = now_ + duration;
  RunUntilIdle();
  while (now_ < end) {
    now_ = std::clamp(NextDeadline(), now_ + 1, end);
    for (size_t i = 0; i < loops_.size(); ++i) {
      loops_[i]->deadlines_.AdvanceTo(now_);
      loops_[i]->timers_.AdvanceTo(now_);
    }
    RunUntilIdle();
  }
}

void MemoryNetwork::ResetAllTo(std::string_view address) {
  for (const Made& made : links_) {
    if (made.address == address) made.link->Break();
  }
}

size_t MemoryNetwork::LinksTo(std::string_view address) const {
  return static_cast<size_t>(
      std::ranges::count_if(links_, [&](const Made& made) { return made.address == address; }));
}

size_t MemoryNetwork::MostUnderWay(std::string_view address, size_t end) const {
  size_t most = 0;
  for (const Made& made : links_) {
    if (made.address == address) most = std::max(most, made.link->under_way(end));
  }
  return most;
}

ManualLoop::ManualLoop(MemoryNetwork& network)
    : network_(network),
      timers_(network.now()),
      deadlines_(network.now()),
      dialer_(std::make_unique<MemoryDialer>(*this)) {
  network_.loops_.push_back(this);
}

ManualLoop::~ManualLoop() {
  CHECK(watches_.empty());
  posted_.clear();
  std::erase(network_.loops_, this);
}

void ManualLoop::Run() {
  stopped_ = false;
  network_.RunUntilIdle();
}

bool ManualLoop::Post(Task task) {
  if (posted_.size() >= kPostMax) return false;
  posted_.push_back(std::move(task));
  return true;
}

bool ManualLoop::RunPosted() {
  const bool any = !posted_.empty();
  for (Task& task : std::exchange(posted_, {})) task();
  return any;
}

absl::StatusOr<std::unique_ptr<Listener>> ManualLoop::Listen(const Address& address,
                                                             AcceptCallback on_accept) {
  Address actual = address;
  if (address.port() == 0) {
    const std::string host = address.text.substr(0, address.text.rfind(':'));
    actual = *Address::Parse(host + ":" + std::to_string(network_.next_port_++));
  }
  return std::make_unique<MemoryListener>(network_, std::move(actual), std::move(on_accept));
}

std::unique_ptr<Listener> ManualLoop::Listen(ListeningSocket socket, AcceptCallback on_accept) {
  return std::make_unique<MemoryListener>(network_, socket.address(), std::move(on_accept));
}

std::unique_ptr<Loop::ReadableWatch> ManualLoop::OnReadable(int, Task) { return nullptr; }

std::unique_ptr<Loop::SignalWatch> ManualLoop::OnSignal(int signal, Task task) {
  return std::make_unique<ManualSignalWatch>(*this, signal, std::move(task));
}

void ManualLoop::Signal(int signal) {
  const auto [begin, end] = watches_.equal_range(signal);
  std::vector<ManualSignalWatch*> hit;
  for (auto it = begin; it != end; ++it) hit.push_back(it->second);
  for (ManualSignalWatch* watch : hit) watch->Fire();
}

void ManualLoop::Offload(Task work, Task done) {
  posted_.push_back([work = std::move(work), done = std::move(done)]() mutable {
    work();
    done();
  });
}

void ManualLoop::Resolve(std::string_view host, uint16_t port,
                         absl::AnyInvocable<void(absl::StatusOr<std::vector<Address>>)> done) {
  absl::StatusOr<std::vector<Address>> result = absl::NotFoundError("no such host name");
  if (const auto found = network_.names.find(host); found != network_.names.end()) {
    std::vector<Address> addresses;
    for (const Address& known : found->second) {
      const std::string bare = known.text.substr(0, known.text.rfind(':'));
      addresses.push_back(*Address::Parse(bare + ":" + std::to_string(port)));
    }
    result = std::move(addresses);
  }
  posted_.push_back([result = std::move(result), done = std::move(done)]() mutable {
    done(std::move(result));
  });
}

}  // namespace penstock
