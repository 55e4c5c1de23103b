// Whether a request that failed at one backend goes to another: the whole rule.
//
// A try that died without a byte of its answer, on a connection that broke or at
// a backend that is suspected to be gone, was no load on the fleet: moving it is
// free, once. Every other retry multiplies load when the fleet can bear it least
// and is paid from a budget: a share of the active requests, and a small floor. Hedges
// are paid from the same one. Paid retries wait first, by chance, so that those which
// failed together do not return together.
//
// A backend that says it is busy does no work for us: the first move off one is free.
// When the next says so too, the fleet is full, and further moves are paid.
//
// Threads: one budget a worker and pool.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>

#include "config/config.h"
#include "proxy/base/random.h"
#include "proxy/base/time.h"
#include "proxy/http/error_reply.h"

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
  uint32_t in_use() const { return retries_; }
  uint64_t refused() const { return refused_; }  // Retries that the budget did not pay.

 private:
  const config::Retry settings_;
  uint32_t active_ = 0;
  uint32_t retries_ = 0;
  uint64_t refused_ = 0;
};

// Why a try had no answer for the client.
struct Failure {
  ReplyCode code = ReplyCode::kInternal;
  std::string message;
};

// What one request has used up.
struct Tries {
  uint32_t faults = 0;       // Tries that ended as a fault.
  uint32_t busy = 0;         // Backends that said busy.
  uint32_t refused = 0;      // Streams that HTTP/2 backends gave back untouched.
  uint32_t back_offs = 0;    // Waits before paid retries.
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

// Whether a request leaves a backend that said it is busy.
inline RetryVerdict MayLeaveBusy(bool answer_sent, bool body_kept, const Tries& tries, RetryBudget& budget) {
  constexpr uint32_t kBusyMax = 8;
  if (answer_sent || !body_kept || tries.busy >= kBusyMax) return RetryVerdict::kNo;
  if (tries.busy == 0) return RetryVerdict::kFree;
  if (tries.paid) return RetryVerdict::kPaid;
  return budget.TryBegin() ? RetryVerdict::kPaid : RetryVerdict::kNo;
}

// The wait before a paid retry: anything up to 25 ms, then 50, 100, 200 and 250 ms.
inline MonoTime BackOffTime(uint32_t earlier, Random& random) {
  constexpr MonoTime kBase = 25 * kMillisecond, kMost = 250 * kMillisecond;
  const MonoTime most = std::min(kBase << std::min(earlier, 4u), kMost);
  return static_cast<MonoTime>(random.Unit() * static_cast<double>(most));
}

}  // namespace penstock
