#include "proxy/backends/backend_dialer.h"

#include <utility>

#include "proxy/net/tls_dialer.h"

namespace penstock {

std::unique_ptr<Dialer::Pending> BackendDialer::Dial(const Address& address, MonoTime timeout,
                                                     Callback callback) {
  std::shared_ptr<const TlsTarget> target = backend_.tls();
  if (target == nullptr) return inner_.Dial(address, timeout, std::move(callback));
  return TlsDialer(inner_, wheel_, std::move(target), alpn_).Dial(address, timeout, std::move(callback));
}

}  // namespace penstock
