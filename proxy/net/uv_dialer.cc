// Dials with uv_tcp_connect; the timeout is a Deadline of the loop's wheel.
#include <fmt/format.h>

#include <utility>

#include "proxy/base/status.h"
#include "proxy/net/uv_stream.h"

namespace penstock {
namespace {

class UvDial final : public Dialer::Pending {
 public:
  UvDial(UvLoop& loop, const Address& address, MonoTime timeout, Dialer::Callback callback)
      : tcp_(Tcp::Open(loop)),
        address_text_(address.text),
        timeout_(timeout),
        callback_(std::move(callback)),
        deadline_(loop.deadlines(), [](void* self) { static_cast<UvDial*>(self)->OnTimeout(); },
                  this) {
    tcp_->connect.data = this;
    const int result = uv_tcp_connect(&tcp_->connect, &tcp_->handle, address.get(), OnConnected);
    if (result == 0) {
      deadline_.Set(loop.now() + timeout);
      return;
    }
    // The handle is closed by whoever comes first, Finish() or the destructor.
    loop.Defer([tcp = tcp_, result] {
      auto* const self = static_cast<UvDial*>(tcp->connect.data);
      if (self != nullptr) self->Finish(self->Refused(result));
    });
  }

  ~UvDial() override {
    if (tcp_ == nullptr) return;
    tcp_->connect.data = nullptr;
    tcp_->Close();
  }

 private:
  static void OnConnected(uv_connect_t* request, int status) {
    auto* const self = static_cast<UvDial*>(request->data);
    if (self == nullptr) return;   // Cancelled; libuv reports it while it closes.
    self->tcp_->loop.Enter();
    if (status != 0) return self->Finish(self->Refused(status));
    self->tcp_->connect.data = nullptr;
    auto stream = std::make_unique<UvStream>(std::move(self->tcp_), self->address_text_);
    self->Finish(std::unique_ptr<Stream>(std::move(stream)));
  }

  void OnTimeout() {
    Finish(absl::DeadlineExceededError(
        A(fmt::format("{}: no connection within {} ms", address_text_, timeout_ / kMillisecond))));
  }

  absl::Status Refused(int error) const {
    // Nobody's fault over there: this process or machine has nothing left to dial with.
    const bool ours = error == UV_EMFILE || error == UV_ENFILE || error == UV_ENOBUFS ||
                      error == UV_ENOMEM || error == UV_EADDRNOTAVAIL;
    if (ours) {
      return absl::ResourceExhaustedError(
          A(fmt::format("{}: no socket to connect with: {}", address_text_, uv_strerror(error))));
    }
    return absl::UnavailableError(
        A(fmt::format("{}: connect: {}", address_text_, uv_strerror(error))));
  }

  // The callback may destroy this: it is called last, from the stack.
  void Finish(absl::StatusOr<std::unique_ptr<Stream>> result) {
    deadline_.Clear();
    if (tcp_ != nullptr) {
      tcp_->connect.data = nullptr;
      std::exchange(tcp_, nullptr)->Close();
    }
    Dialer::Callback callback = std::move(callback_);
    callback(std::move(result));
  }

  std::shared_ptr<Tcp> tcp_;
  const std::string address_text_;
  const MonoTime timeout_;
  Dialer::Callback callback_;
  Deadline deadline_;
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
