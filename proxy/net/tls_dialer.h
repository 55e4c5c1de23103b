// A Dialer over a Dialer: the connection that it hands over speaks TLS to one target.
// The time to connect includes the handshake. Unauthenticated: connected, but no
// handshake; the message says why (an expired certificate, another name, no TLS).
//
// Threads: the loop's thread only.
#pragma once

#include <memory>
#include <string>

#include "proxy/base/deadline_wheel.h"
#include "proxy/net/dialer.h"
#include "proxy/net/tls_client_context.h"

namespace penstock {

class TlsDialer final : public Dialer {
 public:
  // `alpn`: what to offer, best first; empty: nothing.
  TlsDialer(Dialer& inner, DeadlineWheel& wheel, std::shared_ptr<const TlsTarget> target,
            const std::vector<std::string>& alpn);

  std::unique_ptr<Pending> Dial(const Address& address, MonoTime timeout,
                                Callback callback) override;

 private:
  Dialer& inner_;
  DeadlineWheel& wheel_;
  const std::shared_ptr<const TlsTarget> target_;
  const std::string alpn_;
};

}  // namespace penstock
