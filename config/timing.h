// How long a pool's backends may take, and when a request is tried again: a part of
// config.h.
#pragma once

#include <cstdint>

#include "absl/time/time.h"

namespace penstock::config {

struct Timeouts {
  absl::Duration connect = absl::Seconds(1);
  absl::Duration first_token = absl::Seconds(60);  // Streams: request sent to first token.
  absl::Duration response = absl::Minutes(10);     // Other answers: request sent to their head.
  absl::Duration idle = absl::Seconds(60);         // Between two reads of an answer.
  absl::Duration tunnel = absl::Hours(1);          // An upgraded connection on which nothing moves.
  absl::Duration total = absl::ZeroDuration();     // Request's head to answer's end; 0: no limit.
  absl::Duration sse_keep_alive = absl::Seconds(15);  // Silence in a stream before a comment; 0: none.
};

struct Retry {
  uint32_t attempts = 1;                     // Tries after the first one.
  double budget = 0.2;                       // Share of active requests that may be retries ...
  uint32_t budget_min = 3;                   // ... but at least this many.
  absl::Duration per_try_timeout = absl::ZeroDuration();  // Then another backend is tried; 0: never.
  uint64_t body_bytes = 0;                   // Other bodies up to this are kept to be sent again.
};

struct Hedge {
  bool enabled = false;                      // A second try beside one that takes longer than most.
  double percentile = 0.95;                  // Of the pool's recent times to first token, but
  absl::Duration min_delay = absl::Milliseconds(100);  // never earlier than this.
};

}  // namespace penstock::config
