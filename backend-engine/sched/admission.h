// The door of the engine: refuses what can never be served, bounds what waits,
// and tells those whom it turns away when to come back.
//
// What can never fit is refused here, once, so that the scheduler may rely on
// every sequence fitting into the pool when it is alone there; without that
// rule one oversized request would be retried for ever.
//
// Retry-after comes from the rate at which the queue really drains, and each
// client turned away gets the next place in time, so that they do not all come
// back in the same instant.
//
// Pure logic on told time (seconds). Not thread-safe: the engine calls it under
// its inbox lock.
#pragma once

#include <cstdint>
#include <span>

#include "backend-engine/sched/request.h"

namespace penstock::engine {

struct AdmissionOptions {
  int32_t queue_max = 256;             // Sequences waiting for their first step; at least 1.
  int64_t queue_tokens_max = 1 << 20;  // Their prompt tokens. A longer prompt needs an empty queue.
  int32_t max_length = 0;              // Prompt and answer together; 0: what the pool holds.
  int32_t block_tokens = 16;
  int32_t block_count = 0;
  int32_t vocab_size = 0;              // 0: token ids are not checked.
};

class Admission {
 public:
  explicit Admission(const AdmissionOptions& options) : options_(options) {}

  // All of a group or none of it: kOk takes a place in the queue for each, which
  // OnLeft() gives back; ids are the caller's business. A group that no empty
  // queue could take is kTooMany, not kQueueFull: coming back would not help.
  SubmitResult Offer(std::span<const GenerateRequest> group, double now);
  SubmitResult Offer(const GenerateRequest& request, double now) {
    return Offer(std::span(&request, 1), now);
  }

  // `sequences` with `tokens` prompt tokens left the queue: computed for the
  // first time, or ended before that.
  void OnLeft(int32_t sequences, int64_t tokens, double now);

  int32_t queued() const { return queued_; }
  int64_t queued_tokens() const { return queued_tokens_; }

  // Sequences that leave the queue in a second while there are any.
  double DrainRate(double now) const;

  static constexpr double kRetryAfterMax = 60;  // Seconds.

 private:
  SubmitResult CheckRequest(const GenerateRequest& request) const;
  SubmitResult Full(double departures_needed, double now, std::string message);

  AdmissionOptions options_;
  int32_t queued_ = 0;
  int64_t queued_tokens_ = 0;

  // The rate is measured over spells: at most kSpellMax departures from a queue
  // that was not empty in between. What earlier spells said counts as much as
  // kPriorWeight departures, and one second each before there was any.
  static constexpr double kPriorWeight = 4;
  static constexpr double kSpellMax = 32;
  double prior_rate_ = 1;
  double spell_start_ = 0;
  double spell_departures_ = 0;
  double next_return_ = 0;  // When the client turned away last was asked to come back.
};

}  // namespace penstock::engine
