// Whether a request that failed at one backend goes to another: the whole rule.
//
// A try that died without a byte of its answer, on a connection that broke or at
// a backend that is suspected to be gone, was no load on the fleet: moving it is
// free, once. Every other retry multiplies load when the fleet can bear it least
// and is paid from a budget: a share of the active requests, and a small floor.
//
// Threads: one budget a worker and pool.
#pragma once

#include <algorithm>
#include <cstdint>

#include "config/config.h"

namespace penstock {

class RetryBudget {
 public:
  explicit RetryBudget(const config::Retry& settings) : settings_(settings) {}

  void RequestBegun() { ++active_; }
  void RequestEnded() { --active_; }
  // False: spent. REQUIRES: RetryEnded() follows each success.
  bool TryBegin() {
    const auto allowed = std::max<double>(settings_.budget_min, settings_.budget * active_);
    if (retries_ + 1 > allowed) {
      ++refused_;
      return false;
    }
    ++retries_;
    return true;
  }
  void RetryEnded() { --retries_; }
  uint32_t active() const { return active_; }
  uint64_t refused() const { return refused_; }  // Retries that the budget did not pay.

 private:
  const config::Retry settings_;
  uint32_t active_ = 0;
  uint32_t retries_ = 0;
  uint64_t refused_ = 0;
};

// What one request has used up.
struct Tries {
  uint32_t faults = 0;       // Tries that ended as a fault.
  uint32_t busy = 0;         // Backends that said busy.
  uint32_t refused = 0;      // Streams that HTTP/2 backends gave back untouched.
  bool free_used = false;
  bool paid = false;         // Holds a place of the budget.
};

enum class RetryVerdict { kNo, kFree, kPaid };

struct RetryQuestion {
  bool answer_sent = false;       // Something of an answer has left for the client.
  bool body_kept = false;         // The request can be sent again as it was.
  bool answer_begun = false;      // The backend's answer had begun.
  bool connection_died = false;   // Refused, reset, closed: not a timeout, not a status.
  bool backend_suspect = false;   // PoolTable::Suspect.
};

inline RetryVerdict MayRetry(const RetryQuestion& question, const Tries& tries,
                             const config::Retry& settings, RetryBudget& budget) {
  if (question.answer_sent || !question.body_kept) return RetryVerdict::kNo;
  const bool free = !question.answer_begun && !tries.free_used &&
                    (question.connection_died || question.backend_suspect);
  if (free) return RetryVerdict::kFree;
  if (tries.faults > settings.attempts + (tries.free_used ? 1 : 0)) return RetryVerdict::kNo;
  if (tries.paid) return RetryVerdict::kPaid;
  return budget.TryBegin() ? RetryVerdict::kPaid : RetryVerdict::kNo;
}

}  // namespace penstock
