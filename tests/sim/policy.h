// The policy file of a simulation: settings by chance, and what an operator changes
// about them while the proxy serves.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "proxy/base/random.h"

namespace penstock::sim {

// The worlds that a seed may begin in: how far each setting goes.
struct Policy {
  explicit Policy(Random& random);
  std::string Text() const;
  void Change(Random& random);   // A good edit.

  static constexpr size_t kChat = 4, kFar = 2, kFiles = 2;
  static std::string ChatAddress(size_t index);
  static std::string FarAddress(size_t index);    // HTTP/2.
  static std::string FilesAddress(size_t index);

  // Fixed for a seed: what is checked against them has to mean something.
  uint32_t workers, requests_max, connections_max, buffered_max_kib, body_max_kib, probes;
  bool draining_slowly;

  // What an edit changes.
  bool second_listener, cached, coalesced, hedged, breaker, push, chat_last;
  uint32_t attempts, try_timeout_ms, response_ms, idle_ms, queue_max, queue_wait_ms, backend_max,
      total_ms, comment_ms, entry_kib, resend_kib, streams, accepts;
  std::string algorithm;
};

}  // namespace penstock::sim
