// What must hold for any bytes given to the SSE scanner: it says the same
// however they were cut, and its sums add up.
#pragma once

#include <algorithm>
#include <string_view>

#include "proxy/base/check.h"
#include "proxy/http/sse.h"

namespace penstock {

struct SseVerdict {
  size_t complete = 0;
  int events = 0;
  bool token = false, done = false, error = false, unclean = false;
  bool operator==(const SseVerdict&) const = default;
};

inline SseVerdict SseVerdictOf(std::string_view stream, size_t step) {
  SseScanner scanner;
  SseVerdict verdict;
  for (size_t at = 0; at < stream.size(); at += step) {
    const std::string_view part = stream.substr(at, step);
    const SseScanner::Result result = scanner.Scan(part);
    CHECK(result.complete <= part.size());
    CHECK(!(result.first_token && verdict.token));
    if (result.complete > 0) verdict.complete = at + result.complete;
    verdict.events += result.events;
    verdict.token |= result.first_token;
    verdict.done |= result.done;
    verdict.error |= result.error;
    verdict.unclean |= result.unclean;
    CHECK(verdict.complete + scanner.partial_bytes() == at + part.size());
  }
  CHECK(verdict.token == scanner.saw_first_token() && verdict.done == scanner.saw_done());
  return verdict;
}

inline void FuzzSse(std::string_view stream) {
  const SseVerdict whole = SseVerdictOf(stream, stream.size() + 1);
  for (const size_t step : {1, 2, 7, 64}) {
    SseVerdict verdict = SseVerdictOf(stream, step);
    CHECK(verdict == whole);
  }
}

}  // namespace penstock
