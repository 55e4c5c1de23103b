// Some thousand small worlds: random pools, budgets, arrivals, lengths, stops,
// cancels and broken logits. In each, after every step: the books are right,
// the device reads what it wrote (see driver.h), budgets hold. At the end:
// every sequence ended exactly once and nothing is in use.
#include <gtest/gtest.h>

#include <map>
#include <random>
#include <set>
#include <vector>

#include "backend-engine/sched/admission.h"
#include "backend-engine/sched/scheduler.h"
#include "tests/backend-engine/sched/driver.h"
#include "tests/support/seeds.h"

namespace penstock::engine {
namespace {

class World {
 public:
  explicit World(uint64_t seed)
      : random_(seed), options_(RandomOptions()), admission_(RandomDoor()), driver_(options_) {
    stop_share_ = Pick(0, 1) == 0 ? 0 : Pick(2, 40);
    cancel_share_ = Pick(0, 1) == 0 ? 0 : Pick(5, 60);
    broken_share_ = Pick(0, 3) == 0 ? Pick(5, 50) : 0;
    burst_ = Pick(1, 12);
    driver_.ahead = Pick(0, 1) == 0;
    driver_.on_plan = [this](const StepPlan& plan) { CheckPlan(plan); };
    driver_.choose = [](SequenceId id, size_t length) {
      return static_cast<int32_t>((id * 7919 + length * 104729) % 50);
    };
  }

  void Run() {
    const int arrivals = Pick(1, 60);
    int arrived = 0;
    while (arrived < arrivals || !driver_.scheduler.idle() || driver_.in_flight()) {
      ASSERT_LT(steps_, 50000) << "no end in sight";
      if (arrived < arrivals && Pick(0, 3) == 0) {
        for (int i = Pick(1, burst_); i > 0 && arrived < arrivals; --i, ++arrived) Arrive();
      }
      if (cancel_share_ > 0 && Pick(1, cancel_share_) == 1) CancelOne();
      Step();
      if (::testing::Test::HasFatalFailure()) return;
    }
    CheckEnd();
  }

 private:
  int Pick(int low, int high) { return std::uniform_int_distribution<int>(low, high)(random_); }

  SchedulerOptions RandomOptions() {
    const int32_t running = Pick(1, 12);
    return {.block_tokens = 1 << Pick(0, 4),
            .block_count = Pick(1, 3) == 1 ? Pick(1, 10) : Pick(10, 120),
            .step_tokens = running + Pick(0, 60),
            .max_running = running};
  }

  AdmissionOptions RandomDoor() {
    return {.queue_max = Pick(1, 30),
            .queue_tokens_max = Pick(1, 2000),
            .block_tokens = options_.block_tokens,
            .block_count = options_.block_count};
  }

  void Arrive() {
    const int room = options_.block_tokens * options_.block_count;
    const int most = Pick(0, 4) == 0 ? room + 5 : std::max(room / 4, 2);
    GenerateRequest request = MakeRequest(Pick(1, most), Pick(1, most));
    if (stop_share_ > 0) request.stop_tokens = {Pick(0, stop_share_)};
    const auto need = static_cast<int>(request.prompt.size()) + request.max_tokens;
    const SubmitResult verdict = admission_.Offer(request, now_);
    ASSERT_EQ(verdict.code == SubmitCode::kTooLong, need > room + 1);
    if (verdict.code != SubmitCode::kOk) return;
    const SequenceId id = next_id_++;
    if (broken_share_ > 0 && Pick(1, broken_share_) == 1) driver_.broken.insert(id);
    live_[id] = {static_cast<int32_t>(request.prompt.size()), request.max_tokens};
    driver_.scheduler.Add(id, std::move(request), now_);
  }

  void CancelOne() {
    if (live_.empty()) return;
    auto chosen = live_.begin();
    std::advance(chosen, Pick(0, static_cast<int>(live_.size()) - 1));
    ASSERT_TRUE(driver_.scheduler.Cancel(chosen->first));
    ASSERT_FALSE(driver_.scheduler.Cancel(chosen->first));
    ASSERT_EQ(driver_.scheduler.CheckInvariants(), "");
    live_.erase(chosen);
  }

  void Step() {
    ++steps_;
    now_ += 0.001 * Pick(1, 50);
    driver_.Step(now_);
    const SchedulerTotals& totals = driver_.scheduler.totals();
    admission_.OnLeft(static_cast<int32_t>(totals.left_queue - left_),
                      static_cast<int64_t>(totals.left_queue_tokens - left_tokens_), now_);
    left_ = totals.left_queue;
    left_tokens_ = totals.left_queue_tokens;
    for (const TokenEvent& event : driver_.events) Hear(event);
  }

  void CheckPlan(const StepPlan& plan) {
    admitted_ = 0;
    for (const StepSequence& planned : plan.sequences) CheckPlanned(planned.id, planned);
    const uint64_t preemptions = driver_.scheduler.totals().preemptions;
    if (preemptions > preemptions_) {
      ASSERT_EQ(admitted_, 0) << "somebody was admitted in a step that preempted";
    }
    preemptions_ = preemptions;
  }

  struct Live {
    int32_t prompt = 0;
    int32_t max_tokens = 0;
    int32_t tokens = 0;    // Of the answer so far.
    int32_t computed = 0;
    int32_t slot = -1;
    int preempted = 0;
  };

  void CheckPlanned(SequenceId id, const StepSequence& planned) {
    ASSERT_EQ(live_.count(id), 1u) << "sequence " << id << " ended and is computed";
    Live& live = live_[id];
    if (planned.start == 0) {
      ++admitted_;
      if (live.computed > 0) ++live.preempted;
      if (live.slot < 0) {  // Its first time: those before it are in.
        ASSERT_GT(id, last_admitted_) << "sequence " << id << " was overtaken";
        last_admitted_ = id;
      }
    } else {
      ASSERT_EQ(planned.start, live.computed);
      ASSERT_EQ(planned.slot, live.slot);
    }
    live.slot = planned.slot;
    live.computed = planned.start + planned.token_count;
    ASSERT_LE(live.preempted, Scheduler::kPreemptionsMax + static_cast<int>(id));
  }

  void Hear(const TokenEvent& event) {
    ASSERT_EQ(live_.count(event.id), 1u) << "sequence " << event.id << " ended twice";
    Live& live = live_[event.id];
    if (event.token >= 0) ++live.tokens;
    ASSERT_LE(live.tokens, live.max_tokens);
    ASSERT_EQ(event.finish == FinishReason::kFailed, driver_.broken.count(event.id) > 0);
    if (event.finish == FinishReason::kLength) {
      ASSERT_EQ(live.tokens, live.max_tokens);
    }
    if (event.finish != FinishReason::kNone) live_.erase(event.id);
  }

  void CheckEnd() {
    ASSERT_TRUE(live_.empty()) << "sequence " << live_.begin()->first << " never ended";
    ASSERT_EQ(driver_.scheduler.pool().used(), 0);
    ASSERT_EQ(driver_.scheduler.waiting_tokens(), 0);
    ASSERT_EQ(admission_.queued(), 0);
    ASSERT_EQ(admission_.queued_tokens(), 0);
  }

  std::mt19937_64 random_;
  SchedulerOptions options_;
  Admission admission_;
  Driver driver_;
  int stop_share_ = 0;
  int cancel_share_ = 0;
  int broken_share_ = 0;
  int burst_ = 1;
  int steps_ = 0;
  double now_ = 0;
  SequenceId next_id_ = 1;
  SequenceId last_admitted_ = 0;
  int admitted_ = 0;
  uint64_t preemptions_ = 0;
  uint64_t left_ = 0;
  uint64_t left_tokens_ = 0;
  std::map<SequenceId, Live> live_;
};

TEST(SchedulerSim, EverySequenceEndsOnceAndNothingIsLeft) {
  ForEachSeed(3000, [](uint64_t seed) { World(seed).Run(); });
}

}  // namespace
}  // namespace penstock::engine
