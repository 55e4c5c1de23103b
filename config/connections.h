// What the policy file says of connections to backends. Read it beside config.h.
#pragma once

#include <cstdint>

#include "absl/time/time.h"

namespace penstock::config {

// What connections to a backend speak. kAuto: what TLS agrees on, without TLS HTTP/1.1.
enum class Protocol { kAuto, kHttp1, kHttp2 };

struct Connections {
  Protocol protocol = Protocol::kAuto;
  absl::Duration idle_timeout = absl::Seconds(60);     // A connection without a request is closed.
  uint32_t max_streams = 100;                // HTTP/2: requests on one; the backend may allow fewer.
  uint32_t max_connections = 16;             // HTTP/2: to one backend, per worker.
  absl::Duration ping_interval = absl::ZeroDuration();  // HTTP/2: silence before a PING; 0: none.
  absl::Duration ping_timeout = absl::Seconds(5);      // No answer to it: the connection is lost.
};

}  // namespace penstock::config
