// What the policy file lets clients ask for. Read it beside config.h.
#pragma once

#include <cstdint>

namespace penstock::config {

// Requests beyond a limit get the clear answer named beside it.
struct Limits {
  uint64_t header_bytes = 60 * 1024;         // Request line and header fields; 431.
  uint32_t header_count = 100;               // 431.
  uint64_t request_line_bytes = 8 * 1024;    // 414.
  uint64_t request_body = 10 * 1024 * 1024;  // Buffered (inference) bodies; 413.
  uint64_t request_body_rate = 1024;         // Bytes a second, after request_body_idle; 0: any; 408.
  uint64_t buffered_bytes = 512 * 1024 * 1024;  // Sum of buffered bodies of all requests; 503.
  uint32_t connections = 10'000;             // Client connections; closed at accept.
  uint32_t accepts_per_second = 0;           // More wait in the kernel; 0: no limit.
  uint32_t requests = 10'000;                // Requests in progress; 503.
  uint32_t streams_per_connection = 100;     // Requests of one HTTP/2 connection; refused.
  uint32_t json_depth = 64;                  // 400.
  uint64_t event_bytes = 1024 * 1024;        // One server-sent event; 502.
};

}  // namespace penstock::config
