#include "proxy/net/loop.h"

#include <fmt/format.h>
#include <netdb.h>
#include <signal.h>

#include <algorithm>
#include <string>
#include <utility>

#include "absl/time/clock.h"
#include "proxy/base/check.h"
#include "proxy/base/status.h"
#include "proxy/net/uv_loop.h"

namespace penstock {
namespace {

constexpr MonoTime kLateTurn = kSecond;
constexpr MonoTime kHeldAfterIt = kSecond;

MonoTime Clock() { return static_cast<MonoTime>(uv_hrtime() / 1000); }

// The watch owns the handle until it goes; the handle then frees itself.
class UvSignalWatch final : public Loop::SignalWatch {
 public:
  UvSignalWatch(UvLoop& loop, int signal, Loop::Task task) : loop_(loop), task_(std::move(task)) {
    handle_ = new uv_signal_t;
    CHECK(uv_signal_init(loop.uv(), handle_) == 0);
    handle_->data = this;
    const auto callback = [](uv_signal_t* handle, int) {
      auto* watch = static_cast<UvSignalWatch*>(handle->data);
      watch->loop_.Enter();
      watch->task_();
    };
    CHECK(uv_signal_start(handle_, callback, signal) == 0);
  }
  ~UvSignalWatch() override {
    uv_close(reinterpret_cast<uv_handle_t*>(handle_),
             [](uv_handle_t* handle) { delete reinterpret_cast<uv_signal_t*>(handle); });
  }

 private:
  UvLoop& loop_;
  Loop::Task task_;
  uv_signal_t* handle_;
};

class UvReadableWatch final : public Loop::ReadableWatch {
 public:
  UvReadableWatch(UvLoop& loop, int descriptor, Loop::Task task)
      : loop_(loop), task_(std::move(task)), handle_(new uv_poll_t) {
    CHECK(uv_poll_init(loop.uv(), handle_, descriptor) == 0);
    handle_->data = this;
    uv_poll_start(handle_, UV_READABLE | UV_DISCONNECT, [](uv_poll_t* handle, int, int) {
      auto* watch = static_cast<UvReadableWatch*>(handle->data);
      watch->loop_.Enter();
      watch->task_();
    });
  }
  ~UvReadableWatch() override {
    uv_poll_stop(handle_);
    uv_close(reinterpret_cast<uv_handle_t*>(handle_),
             [](uv_handle_t* handle) { delete reinterpret_cast<uv_poll_t*>(handle); });
  }

 private:
  UvLoop& loop_;
  Loop::Task task_;
  uv_poll_t* handle_;
};

struct OffloadRequest {
  uv_work_t request;
  UvLoop* loop;
  Loop::Task work;
  Loop::Task done;
};

using ResolveCallback = absl::AnyInvocable<void(absl::StatusOr<std::vector<Address>>)>;

struct ResolveRequest {
  uv_getaddrinfo_t request;
  UvLoop* loop;
  std::string host;
  uint16_t port;
  ResolveCallback done;
};

// RFC 6761 6.3: this name needs nobody to know it, not even /etc/hosts.
bool IsLocalhost(std::string_view host) { return host == "localhost" || host.ends_with(".localhost"); }

std::vector<Address> Loopbacks(uint16_t port) {
  std::vector<Address> addresses;
  for (const char* host : {"127.0.0.1", "[::1]"}) {
    addresses.push_back(*Address::Parse(fmt::format("{}:{}", host, port)));
  }
  return addresses;
}

absl::StatusOr<std::vector<Address>> Resolved(const std::string& host, uint16_t port, int status,
                                              const addrinfo* list) {
  constexpr size_t kAddressesMax = 256;
  if (status != 0 && IsLocalhost(host)) return Loopbacks(port);
  if (status == UV_EAI_NONAME || status == UV_EAI_NODATA) {
    return absl::NotFoundError(A(fmt::format("{}: no address is known for this host name", host)));
  }
  if (status != 0) {
    return absl::UnavailableError(
        A(fmt::format("{}: looking up the host name failed: {}", host, uv_strerror(status))));
  }
  std::vector<Address> addresses;
  for (; list != nullptr && addresses.size() < kAddressesMax; list = list->ai_next) {
    if (list->ai_family != AF_INET && list->ai_family != AF_INET6) continue;
    Address address = Address::From(*list->ai_addr);
    const bool known = std::any_of(addresses.begin(), addresses.end(),
                                   [&](const Address& a) { return a.text == address.text; });
    if (!known) addresses.push_back(std::move(address));
  }
  return addresses;
}

// The loop of IgnoreFromNowOn(), which never runs and stays.
uv_loop_t* NeverRun() {
  static uv_loop_t* const loop = [] {
    auto* const made = new uv_loop_t;
    CHECK(uv_loop_init(made) == 0);
    return made;
  }();
  return loop;
}

}  // namespace

absl::Time Loop::ReadWallClock() { return absl::Now(); }

std::unique_ptr<Loop> Loop::Create() { return std::make_unique<UvLoop>(); }

UvLoop::UvLoop() : now_(Clock()), timers_(now_), deadlines_(now_) {
  // A peer that is gone shows as EPIPE on the write, not as a signal.
  signal(SIGPIPE, SIG_IGN);
  CHECK(uv_loop_init(&uv_) == 0);
  uv_.data = this;
  CHECK(uv_async_init(&uv_, &wake_, [](uv_async_t* handle) {
          static_cast<UvLoop*>(handle->data)->RunPosted();
        }) == 0);
  uv_prepare_init(&uv_, &prepare_);
  uv_check_init(&uv_, &check_);
  uv_idle_init(&uv_, &idle_);
  uv_timer_init(&uv_, &timer_);
  wake_.data = prepare_.data = check_.data = idle_.data = timer_.data = this;
  uv_prepare_start(&prepare_, [](uv_prepare_t* handle) {
    static_cast<UvLoop*>(handle->data)->BeforePoll();
  });
  uv_check_start(&check_,
                 [](uv_check_t* handle) { static_cast<UvLoop*>(handle->data)->AfterPoll(); });
  dialer_ = MakeUvDialer(*this);
}

UvLoop::~UvLoop() {
  ending_ = true;
  dialer_.reset();
  deferred_.clear();
  for (uv_handle_t* handle :
       {reinterpret_cast<uv_handle_t*>(&wake_), reinterpret_cast<uv_handle_t*>(&prepare_),
        reinterpret_cast<uv_handle_t*>(&check_), reinterpret_cast<uv_handle_t*>(&idle_),
        reinterpret_cast<uv_handle_t*>(&timer_)}) {
    uv_close(handle, nullptr);
  }
  // Lets handles finish closing and waits for work beside the loop.
  uv_run(&uv_, UV_RUN_DEFAULT);
  CHECK(uv_loop_close(&uv_) == 0, "a stream, listener or signal watch outlives its loop");
}

void UvLoop::Run() {
  {
    const std::lock_guard lock(mutex_);
    ended_ = false;
    if (std::exchange(stop_, false)) return;
  }
  uv_run(&uv_, UV_RUN_DEFAULT);
  const std::lock_guard lock(mutex_);
  stop_ = false;
  ended_ = true;
}

void UvLoop::Stop() {
  const std::lock_guard lock(mutex_);
  stop_ = true;
  uv_async_send(&wake_);
}

// The wake-up is sent under the lock, so that it cannot meet a loop that is
// already being destroyed; only the first task of a batch sends one.
bool UvLoop::Post(Task task) {
  const std::lock_guard lock(mutex_);
  if (ended_ || posted_.size() >= kPostMax) return false;
  posted_.push_back(std::move(task));
  if (!std::exchange(wake_sent_, true)) uv_async_send(&wake_);
  return true;
}

void UvLoop::RunPosted() {
  Enter();
  bool stop;
  {
    const std::lock_guard lock(mutex_);
    posted_running_.swap(posted_);
    wake_sent_ = false;
    stop = stop_;
  }
  for (Task& task : posted_running_) task();
  posted_running_.clear();
  if (stop) uv_stop(&uv_);
}

absl::Time UvLoop::wall_now() const { return absl::Now(); }
MonoTime UvLoop::ReadClock() const { return Clock(); }

MonoTime UvLoop::Refresh() const {
  if (!stale_) return now_;
  stale_ = false;
  now_ = std::max(now_, Clock());
  timers_.Observe(now_);
  deadlines_.Observe(now_);
  return now_;
}

void UvLoop::BeforePoll() {
  if (before_wait_) before_wait_();
  if (deferred_.empty()) {
    uv_idle_stop(&idle_);
  } else {
    uv_idle_start(&idle_, [](uv_idle_t*) {});
  }
  const MonoTime next =
      std::max(held_until_, std::min(timers_.NextDeadline().value_or(kNever), deadlines_.NextLook()));
  stale_ = true;
  if (next == armed_for_) return;
  armed_for_ = next;
  if (next == kNever) {
    uv_timer_stop(&timer_);
    return;
  }
  // Rounded up: waking early would only mean to wake twice.
  const MonoTime wait = std::max<MonoTime>(0, next - Clock());
  const auto fired = [](uv_timer_t* timer) {
    static_cast<UvLoop*>(timer->data)->armed_for_ = kNever;
  };
  uv_update_time(&uv_);
  uv_timer_start(&timer_, fired, static_cast<uint64_t>((wait + 999) / 1000), 0);
}

// A turn that comes so late that the process must have been stopped (SIGSTOP, a
// virtual machine that moved) first reads what has come meanwhile: its poll may have
// ended without a look at it, and answers that lie in the kernel are not late. Nor is
// the answer to what the turn that was stopped sent, by a time that was long past: so
// deadlines wait a while. Once: a loop that is always late has deadlines, too.
void UvLoop::AfterPoll() {
  Enter();
  const bool late = armed_for_ != kNever && now_ - armed_for_ > kLateTurn;
  if (late && held_until_ == 0) held_until_ = now_ + kHeldAfterIt;
  if (now_ >= held_until_) {
    held_until_ = 0;
    deadlines_.AdvanceTo(now_);
    timers_.AdvanceTo(now_);
  }
  deferred_running_.swap(deferred_);
  for (Task& task : deferred_running_) task();
  deferred_running_.clear();
}

absl::StatusOr<std::unique_ptr<Listener>> UvLoop::Listen(const Address& address,
                                                         AcceptCallback on_accept) {
  absl::StatusOr<ListeningSocket> socket = ListeningSocket::Open(address);
  if (!socket.ok()) return socket.status();
  return MakeUvListener(*this, *std::move(socket), std::move(on_accept));
}

std::unique_ptr<Listener> UvLoop::Listen(ListeningSocket socket, AcceptCallback on_accept) {
  return MakeUvListener(*this, std::move(socket), std::move(on_accept));
}

std::unique_ptr<Loop::ReadableWatch> UvLoop::OnReadable(int descriptor, Task task) {
  return std::make_unique<UvReadableWatch>(*this, descriptor, std::move(task));
}

std::unique_ptr<Loop::SignalWatch> UvLoop::OnSignal(int signal, Task task) {
  NeverRun();  // While there are descriptors to make it from.
  return std::make_unique<UvSignalWatch>(*this, signal, std::move(task));
}

// The last watch of a signal to go gives it back its default, which ends the process: so
// there is one more here, and it stays.
void Loop::IgnoreFromNowOn(std::span<const int> signals) {
  for (const int number : signals) {
    auto* const watch = new uv_signal_t;
    CHECK(uv_signal_init(NeverRun(), watch) == 0);
    CHECK(uv_signal_start(watch, [](uv_signal_t*, int) {}, number) == 0);
    signal(number, SIG_IGN);
  }
}

void UvLoop::Offload(Task work, Task done) {
  auto* offload = new OffloadRequest{{}, this, std::move(work), std::move(done)};
  offload->request.data = offload;
  const auto run = [](uv_work_t* request) { static_cast<OffloadRequest*>(request->data)->work(); };
  const auto finish = [](uv_work_t* request, int) {
    const std::unique_ptr<OffloadRequest> owned(static_cast<OffloadRequest*>(request->data));
    if (owned->loop->ending()) return;
    owned->loop->Enter();
    owned->done();
  };
  CHECK(uv_queue_work(&uv_, &offload->request, run, finish) == 0);
}

void UvLoop::Resolve(std::string_view host, uint16_t port, ResolveCallback done) {
  auto* resolve = new ResolveRequest{{}, this, std::string(host), port, std::move(done)};
  resolve->request.data = resolve;
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  const auto finish = [](uv_getaddrinfo_t* request, int status, addrinfo* list) {
    const std::unique_ptr<ResolveRequest> owned(static_cast<ResolveRequest*>(request->data));
    if (!owned->loop->ending()) {
      owned->loop->Enter();
      owned->done(Resolved(owned->host, owned->port, status, list));
    }
    uv_freeaddrinfo(list);
  };
  const std::string service = std::to_string(port);
  const int failed = uv_getaddrinfo(&uv_, &resolve->request, finish, resolve->host.c_str(),
                                    service.c_str(), &hints);
  if (failed == 0) return;
  Defer([owned = std::unique_ptr<ResolveRequest>(resolve), failed] {
    owned->done(Resolved(owned->host, owned->port, failed, nullptr));
  });
}

}  // namespace penstock
