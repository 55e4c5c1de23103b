// Dials one backend as its pool says: plainly, or with TLS and the files of the
// moment. Whoever talks to a backend does it through one of these: the connections
// of requests, health checks, load streams.
//
// Threads: the loop's thread only.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "proxy/backends/backend.h"
#include "proxy/base/deadline_wheel.h"
#include "proxy/net/dialer.h"

namespace penstock {

class BackendDialer final : public Dialer {
 public:
  BackendDialer(const Backend& backend, Dialer& inner, DeadlineWheel& wheel)
      : backend_(backend), inner_(inner), wheel_(wheel) {}

  // What is offered where TLS is spoken, best first; HTTP/1.1 alone at the start.
  void SetAlpn(std::vector<std::string> alpn) { alpn_ = std::move(alpn); }

  std::unique_ptr<Pending> Dial(const Address& address, MonoTime timeout,
                                Callback callback) override;

 private:
  const Backend& backend_;
  Dialer& inner_;
  DeadlineWheel& wheel_;
  std::vector<std::string> alpn_{"http/1.1"};
};

}  // namespace penstock
