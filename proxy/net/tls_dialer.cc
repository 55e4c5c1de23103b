#include "proxy/net/tls_dialer.h"

#include <utility>

#include <fmt/format.h>

#include "proxy/base/status.h"
#include "proxy/net/tls_openssl.h"
#include "proxy/net/tls_stream.h"

namespace penstock {
namespace {

class TlsDial final : public Dialer::Pending, public TlsStream::Waiter {
 public:
  TlsDial(Dialer& inner, DeadlineWheel& wheel, std::shared_ptr<const TlsTarget> target,
          std::string_view alpn, const Address& address, MonoTime timeout, Dialer::Callback callback)
      : wheel_(wheel),
        target_(std::move(target)),
        alpn_(alpn),
        address_(address.text),
        timeout_(timeout),
        until_(wheel.now() + timeout),
        callback_(std::move(callback)) {
    pending_ = inner.Dial(address, timeout, [this](absl::StatusOr<std::unique_ptr<Stream>> stream) {
      OnConnected(std::move(stream));
    });
  }

  void OnTlsReady(TlsStream&) override { Finish(std::unique_ptr<Stream>(std::move(stream_))); }

  void OnTlsFailed(TlsStream&, TlsFailure failure, std::string_view why) override {
    if (failure == TlsFailure::kTimeout) {
      return Finish(absl::DeadlineExceededError(A(fmt::format(
          "{}: connected, but no TLS handshake within {} ms", address_, timeout_ / kMillisecond))));
    }
    const std::string_view whose = failure == TlsFailure::kCertificate ? "its certificate: " : "";
    const std::string_view cure =
        failure == TlsFailure::kNotTls ? "; does it speak TLS on this port at all?" : "";
    Finish(absl::UnauthenticatedError(
        A(fmt::format("{}: TLS with {}: {}{}{}", address_, target_->name(), whose, why, cure))));
  }

 private:
  void OnConnected(absl::StatusOr<std::unique_ptr<Stream>> connected) {
    if (!connected.ok()) return Finish(connected.status());
    stream_ = std::make_unique<TlsStream>(target_, alpn_, *std::move(connected), wheel_, *this);
    stream_->Start(until_);
  }

  // The callback may destroy this: what dies with it dies after the call.
  void Finish(absl::StatusOr<std::unique_ptr<Stream>> result) {
    const std::unique_ptr<TlsStream> failed = std::move(stream_);
    const std::unique_ptr<Dialer::Pending> pending = std::move(pending_);
    Dialer::Callback callback = std::move(callback_);
    callback(std::move(result));
  }

  DeadlineWheel& wheel_;
  const std::shared_ptr<const TlsTarget> target_;
  const std::string alpn_;
  const std::string address_;
  const MonoTime timeout_;
  const MonoTime until_;
  Dialer::Callback callback_;
  std::unique_ptr<Dialer::Pending> pending_;
  std::unique_ptr<TlsStream> stream_;
};

}  // namespace

TlsDialer::TlsDialer(Dialer& inner, DeadlineWheel& wheel, std::shared_ptr<const TlsTarget> target,
                     const std::vector<std::string>& alpn)
    : inner_(inner), wheel_(wheel), target_(std::move(target)), alpn_(AlpnWire(alpn)) {}

std::unique_ptr<Dialer::Pending> TlsDialer::Dial(const Address& address, MonoTime timeout,
                                                 Callback callback) {
  return std::make_unique<TlsDial>(inner_, wheel_, target_, alpn_, address, timeout,
                                   std::move(callback));
}

}  // namespace penstock
