#include "proxy/request/tls_door.h"

#include <utility>

#include "proxy/base/log.h"

namespace penstock {

void TlsDoor::Opened(const TlsInfo& info) { (info.resumed ? cells_.resumed : cells_.full).Add(); }

void TlsDoor::Failed(TlsFailure failure, std::string_view why, std::string_view peer, MonoTime now) {
  const auto reason = static_cast<size_t>(failure);
  cells_.failures[reason].Add();
  if (now < next_line_) {
    ++untold_;
    return;
  }
  next_line_ = now + kLogEvery;
  const uint64_t untold = std::exchange(untold_, 0);
  LogWarn("listener {}: no TLS handshake with {}: {} ({}){}", cells_.name, peer, why,
          kTlsFailureNames[reason],
          untold == 0 ? "" : fmt::format("; {} others failed since the last such line", untold));
}

}  // namespace penstock
