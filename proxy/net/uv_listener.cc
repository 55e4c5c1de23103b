// Accepts connections itself on a polled socket: SO_REUSEPORT before bind,
// several connections a wake-up, a pause where its owner wants one, and a rest
// instead of a spin when the process is out of file descriptors (what waits stays
// in the kernel's backlog).
#include <errno.h>
#include <unistd.h>

#include <cstring>
#include <utility>

#include "proxy/base/check.h"
#include "proxy/base/log.h"
#include "proxy/net/uv_stream.h"

namespace penstock {
namespace {

constexpr int kAcceptsPerWake = 64;
constexpr int kBacklogMax = 4096;
constexpr MonoTime kRest = 100 * kMillisecond;
constexpr MonoTime kWarnEvery = 10 * kSecond;

class UvListener final : public Listener {
 public:
  UvListener(UvLoop& loop, int fd, Address address, Loop::AcceptCallback on_accept)
      : loop_(loop),
        fd_(fd),
        address_(std::move(address)),
        on_accept_(std::move(on_accept)),
        rest_(loop.deadlines(), [](void* self) { static_cast<UvListener*>(self)->EndRest(); }, this),
        poll_(new uv_poll_t) {
    CHECK(uv_poll_init(loop.uv(), poll_, fd) == 0);
    poll_->data = this;
    Start();
  }

  ~UvListener() override {
    poll_->data = nullptr;
    uv_poll_stop(poll_);
    close(fd_);
    uv_close(reinterpret_cast<uv_handle_t*>(poll_),
             [](uv_handle_t* handle) { delete reinterpret_cast<uv_poll_t*>(handle); });
  }

  const Address& address() const override { return address_; }
  void Pause() override {
    paused_ = true;
    uv_poll_stop(poll_);
  }
  void Resume() override {
    if (!std::exchange(paused_, false) || rest_.armed()) return;
    Start();
  }
  void AcceptWaiting() override {
    for (int i = 0; i < kBacklogMax && AcceptOne(); ++i) continue;
  }

 private:
  void EndRest() {
    if (!paused_) Start();
  }
  void Start() {
    uv_poll_start(poll_, UV_READABLE, [](uv_poll_t* poll, int, int) {
      static_cast<UvListener*>(poll->data)->loop_.Enter();
      Accept(poll);
    });
  }

  // on_accept may destroy the listener, so it is looked up again each time.
  static void Accept(uv_poll_t* poll) {
    for (int i = 0; i < kAcceptsPerWake; ++i) {
      auto* const self = static_cast<UvListener*>(poll->data);
      if (self == nullptr || self->paused_ || !self->AcceptOne()) return;
    }
  }

  bool AcceptOne() {
    sockaddr_storage from{};
    socklen_t length = sizeof(from);
    const int fd = accept4(fd_, reinterpret_cast<sockaddr*>(&from), &length,
                           SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) return OnAcceptError(errno);
    std::shared_ptr<Tcp> tcp = Tcp::Open(loop_, fd);
    if (tcp == nullptr) return true;
    Address peer = Address::From(reinterpret_cast<const sockaddr&>(from));
    on_accept_(std::make_unique<UvStream>(std::move(tcp), std::move(peer.text)));
    return true;
  }

  // True: try the next one at once.
  bool OnAcceptError(int error) {
    if (error == EAGAIN) return false;
    if (error == ECONNABORTED || error == EINTR || error == EPROTO) return true;
    uv_poll_stop(poll_);
    rest_.Set(loop_.now() + kRest);
    if (loop_.now() >= warn_after_) {
      warn_after_ = loop_.now() + kWarnEvery;
      LogWarn("listener {}: accept: {}; trying again every {} ms{}", address_.text, strerror(error),
              kRest / kMillisecond,
              error == EMFILE ? "; raise the limit of open files (ulimit -n)" : "");
    }
    return false;
  }

  UvLoop& loop_;
  const int fd_;
  const Address address_;
  Loop::AcceptCallback on_accept_;
  Deadline rest_;
  MonoTime warn_after_ = 0;
  bool paused_ = false;
  uv_poll_t* poll_;
};

}  // namespace

std::unique_ptr<Listener> MakeUvListener(UvLoop& loop, ListeningSocket socket,
                                         Loop::AcceptCallback on_accept) {
  Address address = socket.address();
  return std::make_unique<UvListener>(loop, socket.Release(), std::move(address),
                                      std::move(on_accept));
}

}  // namespace penstock
