// Dials; the timeout is a Deadline of the loop's wheel.
#include <errno.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <memory>
#include <utility>

#include "proxy/base/status.h"
#include "proxy/net/uv_stream.h"

namespace penstock {
namespace {

// A socket that has begun to connect; -1: errno says why not.
int BeginConnecting(const Address& address) {
  const int fd = socket(address.get()->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return -1;
  const socklen_t length =
      address.get()->sa_family == AF_INET6 ? sizeof(sockaddr_in6) : sizeof(sockaddr_in);
  if (connect(fd, address.get(), length) == 0 || errno == EINPROGRESS || errno == EINTR) return fd;
  const int error = errno;
  close(fd);
  errno = error;
  return -1;
}

class UvDial final : public Dialer::Pending {
 public:
  UvDial(UvLoop& loop, const Address& address, MonoTime timeout, Dialer::Callback callback)
      : address_text_(address.text),
        timeout_(timeout),
        callback_(std::move(callback)),
        deadline_(loop.deadlines(), [](void* self) { static_cast<UvDial*>(self)->OnTimeout(); },
                  this) {
    const int fd = BeginConnecting(address);
    if (fd >= 0) tcp_ = Tcp::Open(loop, fd);
    if (tcp_ != nullptr) {
      tcp_->SetOwner(this, [](void* self, int) { static_cast<UvDial*>(self)->OnConnected(); });
      tcp_->Watch(UV_WRITABLE);
      deadline_.Set(loop.now() + timeout);
      return;
    }
    // Told at the end of this turn, if anybody still waits then.
    const int error = errno;
    me_ = std::make_shared<UvDial*>(this);
    loop.Defer([me = me_, error] {
      if (*me != nullptr) (*me)->Finish((*me)->Refused(error));
    });
  }

  ~UvDial() override { Leave(); }

 private:
  void OnConnected() {
    if (const int error = tcp_->TakeError(); error != 0) return Finish(Refused(error));
    Finish(std::unique_ptr<Stream>(std::make_unique<UvStream>(std::move(tcp_), address_text_)));
  }

  void OnTimeout() {
    Finish(absl::DeadlineExceededError(
        A(fmt::format("{}: no connection within {} ms", address_text_, timeout_ / kMillisecond))));
  }

  absl::Status Refused(int error) const {
    // Nobody's fault over there: this process or machine has nothing left to dial with.
    const bool ours = error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM ||
                      error == EADDRNOTAVAIL;
    if (ours) {
      return absl::ResourceExhaustedError(
          A(fmt::format("{}: no socket to connect with: {}", address_text_, uv_strerror(-error))));
    }
    return absl::UnavailableError(
        A(fmt::format("{}: connect: {}", address_text_, uv_strerror(-error))));
  }

  void Leave() {
    if (me_ != nullptr) *me_ = nullptr;
    if (tcp_ != nullptr) std::exchange(tcp_, nullptr)->Close();
  }

  // The callback may destroy this: it is called last, from the stack.
  void Finish(absl::StatusOr<std::unique_ptr<Stream>> result) {
    deadline_.Clear();
    Leave();
    Dialer::Callback callback = std::move(callback_);
    callback(std::move(result));
  }

  std::shared_ptr<Tcp> tcp_;
  const std::string address_text_;
  const MonoTime timeout_;
  Dialer::Callback callback_;
  Deadline deadline_;
  std::shared_ptr<UvDial*> me_;   // For what is told later.
};

class UvDialer final : public Dialer {
 public:
  explicit UvDialer(UvLoop& loop) : loop_(loop) {}
  std::unique_ptr<Pending> Dial(const Address& address, MonoTime timeout,
                                Callback callback) override {
    return std::make_unique<UvDial>(loop_, address, timeout, std::move(callback));
  }

 private:
  UvLoop& loop_;
};

}  // namespace

std::unique_ptr<Dialer> MakeUvDialer(UvLoop& loop) { return std::make_unique<UvDialer>(loop); }

}  // namespace penstock
