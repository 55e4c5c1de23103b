// Plays the device for a scheduler: computes plans with a cache that remembers
// which token of which sequence lies where, so that a wrong block, a skipped
// position or a stale cache shows as a failure at once.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "backend-engine/sched/scheduler.h"

namespace penstock::engine {

inline GenerateRequest MakeRequest(int32_t prompt_tokens, int32_t max_tokens) {
  GenerateRequest request;
  for (int32_t i = 0; i < prompt_tokens; ++i) request.prompt.push_back(1000 + i);
  request.max_tokens = max_tokens;
  return request;
}

class Driver {
 public:
  explicit Driver(const SchedulerOptions& options)
      : scheduler(options),
        cache_(static_cast<size_t>(options.block_count * options.block_tokens)) {}

  // Plans, computes and commits one step at the told time; with `ahead`, the step
  // after it is planned and computed before.
  void Step(double now = 0) {
    events.clear();
    if (flight_ == nullptr) {
      const StepPlan& plan = scheduler.Plan();
      if (plan.empty()) return;
      Start(plan);
      flight_ = &plan;
    }
    const StepPlan* next = ahead ? scheduler.PlanAhead() : nullptr;
    if (next != nullptr) Start(*next);
    scheduler.Commit(*flight_, results_[flight_->number % 2], now, events);
    flight_ = next;
    ASSERT_EQ(scheduler.CheckInvariants(), "");
  }

  bool in_flight() const { return flight_ != nullptr; }

  // Steps until nothing is left; fails after `steps_max`.
  void Finish(int steps_max = 100000) {
    while (!scheduler.idle() || in_flight()) {
      ASSERT_GT(steps_max--, 0) << "still running " << scheduler.running() << ", waiting "
                                << scheduler.waiting();
      Step();
      for (const TokenEvent& event : events) all_events.push_back(event);
    }
  }

  bool Planned(SequenceId id) const { return planned.count(id) > 0; }

  Scheduler scheduler;
  std::vector<TokenEvent> events;            // Of the last step.
  std::vector<TokenEvent> all_events;        // Of Finish().
  std::map<SequenceId, StepSequence> planned;  // Of the last step that was not empty.
  // What the device answers; a pure function of the sequence and its length.
  std::function<int32_t(SequenceId, size_t)> choose = [](SequenceId id, size_t length) {
    return static_cast<int32_t>((id * 31 + length * 7) % 900);
  };
  std::set<SequenceId> broken;     // Their logits are not finite.
  std::set<SequenceId> forbidden;  // Their mask allows no token.
  bool ahead = false;
  std::function<void(const StepPlan&)> on_plan;

 private:
  void Start(const StepPlan& plan) {
    planned.clear();
    for (const StepSequence& sequence : plan.sequences) planned[sequence.id] = sequence;
    if (on_plan) on_plan(plan);
    StepResult& result = results_[plan.number % 2];
    result.number = plan.number;
    result.sampled.clear();
    blocks_seen_.assign(static_cast<size_t>(scheduler.options().block_count), false);
    for (const StepSequence& sequence : plan.sequences) Compute(plan, sequence, result);
    EXPECT_LE(plan.tokens.size(), static_cast<size_t>(scheduler.options().step_tokens));
  }

  struct Place {
    SequenceId id = 0;
    int32_t position = -1;
    int32_t token = -1;
  };

  void Compute(const StepPlan& plan, const StepSequence& sequence, StepResult& result) {
    // What the device knows: the awaited token is what its last step chose.
    std::vector<int32_t> known(sequence.history.begin(), sequence.history.end());
    if (sequence.awaited >= 0) {
      const auto& before = results_[(plan.number + 1) % 2];
      ASSERT_EQ(before.number + 1, plan.number);
      const SampledToken& chosen = before.sampled.at(static_cast<size_t>(sequence.awaited));
      ASSERT_EQ(chosen.id, sequence.id);
      ASSERT_EQ(sequence.token_count, 1);
      ASSERT_EQ(static_cast<size_t>(sequence.start), known.size());
      known.push_back(chosen.token);
    }
    const int32_t block_tokens = scheduler.options().block_tokens;
    const auto* table = plan.block_table.data() + sequence.first_block;
    ASSERT_GT(sequence.token_count, 0);
    ASSERT_GE(sequence.block_count * block_tokens, sequence.start + sequence.token_count);
    for (int32_t i = 0; i < sequence.block_count; ++i) {
      const auto block = static_cast<size_t>(table[i]);
      ASSERT_FALSE(blocks_seen_.at(block)) << "block " << block << " is used twice";
      blocks_seen_[block] = true;
    }
    const auto place = [&](int32_t position) -> Place& {
      return cache_[static_cast<size_t>(table[position / block_tokens] * block_tokens +
                                        position % block_tokens)];
    };
    for (int32_t i = 0; i < sequence.token_count; ++i) {
      const int32_t position = sequence.start + i;
      const int32_t planned_token = plan.tokens[static_cast<size_t>(sequence.first_token + i)];
      const int32_t token = sequence.awaited >= 0 ? known.back() : planned_token;
      ASSERT_EQ(planned_token, sequence.awaited >= 0 ? 0 : token);
      ASSERT_EQ(token, known[static_cast<size_t>(position)]);
      place(position) = {sequence.id, position, token};
    }
    if (!sequence.sample) return;
    ASSERT_EQ(static_cast<size_t>(sequence.start + sequence.token_count), known.size());
    for (int32_t position = 0; position < sequence.start; ++position) {
      const Place& found = place(position);
      ASSERT_TRUE(found.id == sequence.id && found.position == position &&
                  found.token == known[static_cast<size_t>(position)])
          << "sequence " << sequence.id << " reads position " << position << " of sequence "
          << found.id << " at " << found.position;
    }
    SampledToken& sampled = result.sampled.emplace_back();
    sampled.id = sequence.id;
    sampled.token = choose(sequence.id, known.size());
    sampled.forbidden = forbidden.count(sequence.id) > 0;
    sampled.invalid = sampled.forbidden || broken.count(sequence.id) > 0;
  }

  std::vector<Place> cache_;
  std::vector<bool> blocks_seen_;  // In the step being computed.
  StepResult results_[2];          // Of step n: n % 2.
  const StepPlan* flight_ = nullptr;
};

}  // namespace penstock::engine
