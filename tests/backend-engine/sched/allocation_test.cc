// A step allocates nothing: this binary's operator new counts while it is told to.
#include <gtest/gtest.h>

#include <cstdlib>
#include <new>

#include "backend-engine/sched/scheduler.h"
#include "tests/backend-engine/sched/driver.h"

namespace {

thread_local bool counting = false;
thread_local int allocations = 0;

}  // namespace

void* operator new(size_t size) {
  if (counting) ++allocations;
  if (void* memory = std::malloc(size)) return memory;
  throw std::bad_alloc();
}
// The compiler sees through an inlined delete and takes free() for a mismatch.
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, size_t) noexcept { std::free(memory); }

namespace penstock::engine {
namespace {

StepResult Computed(const StepPlan& plan, StepResult result) {
  result.number = plan.number;
  result.sampled.clear();
  for (const StepSequence& sequence : plan.sequences) {
    if (!sequence.sample) continue;
    SampledToken& sampled = result.sampled.emplace_back();
    sampled.id = sequence.id;
    sampled.token = 5;
  }
  return result;
}

TEST(Scheduler, AStepAllocatesNothing) {
  for (const bool ahead : {false, true}) {
    Scheduler scheduler({.block_tokens = 4, .block_count = 60, .step_tokens = 32,
                         .max_running = 8});
    for (SequenceId id = 1; id <= 40; ++id) {
      scheduler.Add(id, MakeRequest(10 + static_cast<int32_t>(id), 30), 0);
    }
    StepResult result;
    result.sampled.reserve(8);
    std::vector<TokenEvent> events;
    events.reserve(8);
    const StepPlan* flight = nullptr;
    int planned_ahead = 0;
    counting = true;
    while (!scheduler.idle() || flight != nullptr) {
      if (flight == nullptr) flight = &scheduler.Plan();
      const StepPlan* next = ahead ? scheduler.PlanAhead() : nullptr;
      planned_ahead += next != nullptr ? 1 : 0;
      result = Computed(*flight, std::move(result));
      events.clear();
      scheduler.Commit(*flight, result, 0, events);
      flight = next;
    }
    counting = false;
    EXPECT_EQ(allocations, 0);
    EXPECT_EQ(planned_ahead > 100, ahead) << planned_ahead;
    EXPECT_GT(scheduler.totals().preemptions, 0u);  // So that preempting is covered, too.
  }
}

}  // namespace
}  // namespace penstock::engine
