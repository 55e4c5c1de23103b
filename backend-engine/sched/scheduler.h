// Decides what the next step computes, and does the books when it is done.
//
//   plan = Plan(); ...somebody computes it...; Commit(plan, result)
//
// Where the device takes a step while another one runs, the next plan is made
// ahead, on the word of the scheduler that nobody ends:
//
//   plan = Plan(); next = PlanAhead(); ...; Commit(plan, result); then = PlanAhead(); ...
//
// A sequence that ends after all, by a stop token or a cancel, was computed in
// vain once: its result is dropped when that step is committed. Its blocks are
// free at once, since whoever gets them is computed in a later step.
//
// Continuous batching with a token budget and without phases: every running
// sequence gets tokens so that its computed count catches up with what it
// knows; those that run come first, in the order in which they were admitted,
// then those that wait, first come first served.
//
// What keeps it out of the traps that other schedulers fall into:
//  - A sequence is admitted only if all that it knows fits into the pool now,
//    and takes those blocks at once: no two half-loaded sequences wait for each
//    other, and a resumed one is not thrown out half-way through its prompt.
//  - Admission also leaves room for those that run to grow. The room is a share
//    of the answers still to be expected; every preemption raises the share and
//    every quiet step lowers it, so a storm of preemptions calms itself.
//  - Nobody is admitted in a step that preempted somebody.
//  - The victim is who has computed least, so that least is lost. A sequence
//    preempted kPreemptionsMax times is out of reach of those that were not,
//    and among such ones the oldest stays: everybody finishes.
//  - Only ends make room, so a sequence cannot be preempted and resumed in turns.
//
// The caller's part: every sequence added fits into the pool alone (Admission
// sees to that), and Add and Cancel come between Commit and the next plan.
//
// Pure logic: the same calls give the same plans. Time is told, in seconds. A
// step allocates nothing: what a sequence needs until its end it gets in Add().
// Threads: the engine thread only.
#pragma once

#include <cstdint>
#include <list>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "backend-engine/sched/block_pool.h"
#include "backend-engine/sched/request.h"
#include "backend-engine/sched/sequence.h"
#include "backend-engine/sched/step.h"

namespace penstock::engine {

struct SchedulerOptions {
  int32_t block_tokens = 16;
  int32_t block_count = 0;
  int32_t step_tokens = 512;  // At least max_running, so that everybody advances in every step.
  int32_t max_running = 64;
};

// Totals since the start.
struct SchedulerTotals {
  uint64_t steps = 0;
  uint64_t preemptions = 0;
  uint64_t prompt_tokens = 0;      // Of prompts computed to their end; each once.
  uint64_t generated_tokens = 0;
  uint64_t prefill_tokens = 0;     // Computed to catch up: prompts, and answers after a preemption.
  uint64_t recomputed_tokens = 0;  // Thrown away by preemptions.
  uint64_t vain_tokens = 0;        // Computed ahead for sequences that had ended.
  uint64_t left_queue = 0;         // Sequences that were admitted, or ended, for the first time,
  uint64_t left_queue_tokens = 0;  // and their prompt tokens.
};

class Scheduler {
 public:
  explicit Scheduler(const SchedulerOptions& options);

  // REQUIRES: id is new and not 0; the request passed Admission.
  void Add(SequenceId id, GenerateRequest request, double now);

  // Ends a sequence and frees its blocks. False: no such sequence.
  bool Cancel(SequenceId id);

  // What to compute next; empty only when there is no sequence. Valid until
  // it is committed. REQUIRES: all plans that were not empty were committed.
  const StepPlan& Plan();

  // What to compute after the plan that is open, before its result is known. Null
  // where that cannot be said: memory is short, or nobody goes on for certain.
  // REQUIRES: exactly one plan is open.
  const StepPlan* PlanAhead();

  // Of the plan that was made first of those open: appends tokens, ends what is
  // complete, frees blocks; adds one event for each token or end. Takes the
  // log-probabilities out of `result`.
  void Commit(const StepPlan& plan, StepResult& result, double now,
              std::vector<TokenEvent>& events);

  // Ends everything as kFailed, whether a plan is open or not.
  void FailAll(std::string_view error, std::vector<TokenEvent>& events);

  // Seconds from arrival to first token of those that got theirs in the last Commit.
  std::span<const double> first_token_waits() const { return first_token_waits_; }

  bool idle() const { return live_.empty(); }
  int32_t running() const { return static_cast<int32_t>(running_.size()); }
  int32_t waiting() const { return static_cast<int32_t>(waiting_.size()); }
  int64_t waiting_tokens() const;  // Known and not yet computed, those that run included.
  int64_t running_tokens() const;  // In the cache.
  const BlockPool& pool() const { return pool_; }
  const SchedulerTotals& totals() const { return totals_; }
  const SchedulerOptions& options() const { return options_; }

  // Says which promise is broken, or nothing. For tests: slow.
  std::string CheckInvariants() const;

  static constexpr int32_t kPreemptionsMax = 2;

 private:
  using Sequences = std::list<Sequence>;  // Nodes move between lists: nothing is allocated.

  int32_t BlocksFor(int32_t tokens) const;
  double UsualAnswer() const { return answer_squares_ / answer_tokens_; }
  int32_t GrowthBlocks(const Sequence& sequence) const;
  Sequences::iterator Victim();
  void Preempt(Sequences::iterator victim);
  bool SecureRunning();
  bool SecureAhead();
  StepPlan& EmptyPlan();
  void AdmitWaiting(StepPlan& plan, int32_t budget);
  void Schedule(StepPlan& plan, Sequence& sequence, int32_t count);
  bool Awaits(const Sequence& sequence) const;
  bool EndsNow(const Sequence& sequence) const;
  void LeaveQueue(Sequence& sequence);
  void AppendToken(Sequence& sequence, SampledToken& sampled, double now, TokenEvent& event);
  void End(Sequences::iterator sequence);

  SchedulerOptions options_;
  BlockPool pool_;
  Sequences running_;  // In the order of admission.
  Sequences waiting_;  // In the order of arrival, which puts the preempted in front.
  std::unordered_map<SequenceId, Sequences::iterator> live_;
  std::vector<int32_t> free_slots_;
  int64_t queued_known_ = 0;  // Tokens known by those that wait.
  uint64_t next_arrival_ = 0;
  double growth_share_;
  double answer_tokens_;   // Means over the answers that ended lately: of their length,
  double answer_squares_;  // and of its square.
  uint64_t plans_made_ = 0;
  uint64_t plans_done_ = 0;  // At most two fewer.
  StepPlan plans_[2];        // Of step n: n % 2.
  int32_t samples_planned_ = 0;
  std::vector<double> first_token_waits_;
  SchedulerTotals totals_;
};

}  // namespace penstock::engine
