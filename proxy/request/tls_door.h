// One listener's TLS as one worker has it: the context of the moment (replaced when
// certificates are), and what became of handshakes: all counted, and those that
// failed told in the log, one line in a while.
//
// Threads: the worker's thread only.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>

#include "proxy/backends/listener_metrics.h"
#include "proxy/base/time.h"
#include "proxy/net/tls_server_context.h"

namespace penstock {

class TlsDoor {
 public:
  static constexpr MonoTime kLogEvery = 10 * kSecond;

  explicit TlsDoor(ListenerCells& cells) : cells_(cells) {}

  // Null: plain.
  const std::shared_ptr<const TlsServerContext>& context() const { return context_; }
  void SetContext(std::shared_ptr<const TlsServerContext> context) { context_ = std::move(context); }

  void Opened(const TlsInfo& info);
  void Failed(TlsFailure failure, std::string_view why, std::string_view peer, MonoTime now);
  uint64_t untold() const { return untold_; }   // Failures since the last line of the log.

 private:
  ListenerCells& cells_;
  std::shared_ptr<const TlsServerContext> context_;
  MonoTime next_line_ = 0;
  uint64_t untold_ = 0;
};

}  // namespace penstock
