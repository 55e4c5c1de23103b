// Accepts connections itself on a polled socket: SO_REUSEPORT before bind,
// several connections a wake-up, and a rest instead of a spin when the process
// is out of file descriptors (what waits stays in the kernel's backlog).
#include <errno.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <unistd.h>

#include <cstring>
#include <utility>

#include "proxy/base/check.h"
#include "proxy/base/log.h"
#include "proxy/base/status.h"
#include "proxy/net/uv_stream.h"

namespace penstock {
namespace {

constexpr int kBacklog = 1024;
constexpr int kAcceptsPerWake = 64;
constexpr MonoTime kRest = 100 * kMillisecond;
constexpr MonoTime kWarnEvery = 10 * kSecond;

// Owns a descriptor until released.
class Socket {
 public:
  explicit Socket(int fd) : fd_(fd) {}
  ~Socket() { if (fd_ >= 0) close(fd_); }
  Socket(const Socket&) = delete;
  Socket& operator=(const Socket&) = delete;
  int get() const { return fd_; }
  int Release() { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

absl::Status ListenError(const Address& address, int error) {
  if (error == EADDRINUSE) {
    return absl::AlreadyExistsError(A(fmt::format(
        "{}: the port is in use by another program; stop that one or listen elsewhere",
        address.text)));
  }
  if (error == EACCES) {
    return absl::PermissionDeniedError(A(fmt::format(
        "{}: not allowed to listen there; ports below 1024 need CAP_NET_BIND_SERVICE",
        address.text)));
  }
  if (error == EADDRNOTAVAIL) {
    return absl::UnavailableError(
        A(fmt::format("{}: this machine does not have that address", address.text)));
  }
  return absl::UnavailableError(A(fmt::format("{}: listen: {}", address.text, strerror(error))));
}

class UvListener final : public Listener {
 public:
  UvListener(UvLoop& loop, int fd, Address address, Loop::AcceptCallback on_accept)
      : loop_(loop),
        fd_(fd),
        address_(std::move(address)),
        on_accept_(std::move(on_accept)),
        rest_(loop.deadlines(), [](void* self) { static_cast<UvListener*>(self)->Start(); }, this),
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

 private:
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
      if (self == nullptr || !self->AcceptOne()) return;
    }
  }

  bool AcceptOne() {
    sockaddr_storage from{};
    socklen_t length = sizeof(from);
    const int fd = accept4(fd_, reinterpret_cast<sockaddr*>(&from), &length,
                           SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) return OnAcceptError(errno);
    std::shared_ptr<Tcp> tcp = Tcp::Open(loop_);
    if (uv_tcp_open(&tcp->handle, fd) != 0) {
      close(fd);
      tcp->Close();
      return true;
    }
    uv_tcp_nodelay(&tcp->handle, 1);
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
  uv_poll_t* poll_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Listener>> MakeUvListener(UvLoop& loop, const Address& address,
                                                         Loop::AcceptCallback on_accept) {
  const int family = address.storage.ss_family;
  Socket socket(::socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (socket.get() < 0) return ListenError(address, errno);
  const int on = 1;
  setsockopt(socket.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  setsockopt(socket.get(), SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on));
  // Each family for itself: [::]:80 beside 0.0.0.0:80 is no conflict.
  if (family == AF_INET6) setsockopt(socket.get(), IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on));
  const socklen_t length = family == AF_INET6 ? sizeof(sockaddr_in6) : sizeof(sockaddr_in);
  if (bind(socket.get(), address.get(), length) != 0) return ListenError(address, errno);
  if (listen(socket.get(), kBacklog) != 0) return ListenError(address, errno);
  sockaddr_storage bound{};
  socklen_t bound_length = sizeof(bound);
  if (getsockname(socket.get(), reinterpret_cast<sockaddr*>(&bound), &bound_length) != 0) {
    return ListenError(address, errno);
  }
  return std::make_unique<UvListener>(loop, socket.Release(),
                                      Address::From(reinterpret_cast<const sockaddr&>(bound)),
                                      std::move(on_accept));
}

}  // namespace penstock
