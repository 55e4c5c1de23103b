#include "backend-engine/sched/scheduler.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "backend-engine/sched/check.h"

namespace penstock::engine {
namespace {

// Admission leaves room for a share of what every running sequence may still
// grow by: what max_tokens leaves it, but no more than two usual answers, since
// most requests end long before their limits. What is usual is told by tokens,
// not by answers (mean square over mean): a sequence found running is more
// often a long one.
//
// Simulated with 200 sequences of max_tokens 400 in pools for 67 to 10 % of 64
// of them, against leaving no room: where all answers go to their limits,
// recomputed tokens fall from 7-30 % to 2-12 % of the computed, for 9-20 % more
// steps; where answers use a tenth of their limits, steps grow by 7-9 %. A share
// that fades with answers instead of steps preempts half as often and carries a
// quarter less: not worth it.
constexpr double kGrowthShareMin = 0.1;
constexpr double kGrowthShareRise = 0.15;   // With every preemption,
constexpr double kGrowthShareFade = 0.001;  // with every step without one.
constexpr double kGrowthAnswers = 2;
constexpr double kAnswerAtStart = 256;  // Tokens.
constexpr double kAnswerWeight = 1.0 / 128;

unsigned long long Number(SequenceId id) { return static_cast<unsigned long long>(id); }

}  // namespace

Scheduler::Scheduler(const SchedulerOptions& options)
    : options_(options),
      pool_(options.block_count),
      growth_share_(kGrowthShareMin),
      answer_tokens_(kAnswerAtStart),
      answer_squares_(kAnswerAtStart * kAnswerAtStart) {
  ENGINE_CHECK(options.block_tokens > 0 && options.max_running > 0 &&
                   options.step_tokens >= options.max_running,
               "block_tokens %d, max_running %d, step_tokens %d", options.block_tokens,
               options.max_running, options.step_tokens);
  const auto slots = static_cast<size_t>(options.max_running);
  for (int32_t slot = options.max_running - 1; slot >= 0; --slot) free_slots_.push_back(slot);
  for (StepPlan& plan : plans_) {
    plan.tokens.reserve(static_cast<size_t>(options.step_tokens));
    plan.block_table.reserve(static_cast<size_t>(options.block_count));
    plan.sequences.reserve(slots);
  }
  first_token_waits_.reserve(slots);
}

int32_t Scheduler::BlocksFor(int32_t tokens) const {
  return (tokens + options_.block_tokens - 1) / options_.block_tokens;
}

// Blocks to leave free for what this sequence may still grow by.
int32_t Scheduler::GrowthBlocks(const Sequence& sequence) const {
  // The last token is never computed, so it needs no place.
  const int32_t allowed = std::max(sequence.length_max - 1 - sequence.known(), 0);
  const double expected = std::min<double>(allowed, kGrowthAnswers * UsualAnswer());
  const auto share = static_cast<int32_t>(std::ceil(growth_share_ * expected));
  const int32_t growth = std::min(allowed, std::max(share, options_.block_tokens));
  return BlocksFor(sequence.known() + growth) - BlocksFor(sequence.known());
}

void Scheduler::Add(SequenceId id, GenerateRequest request, double now) {
  const auto prompt_length = static_cast<int32_t>(request.prompt.size());
  const int32_t length_max = prompt_length + request.max_tokens;
  ENGINE_CHECK(id != 0 && prompt_length > 0 && request.max_tokens > 0 &&
                   BlocksFor(length_max - 1) <= pool_.total(),
               "sequence %llu: prompt %d, max_tokens %d, pool %d blocks", Number(id),
               prompt_length, request.max_tokens, pool_.total());
  Sequence& sequence = waiting_.emplace_back();
  const auto [entry, fresh] = live_.emplace(id, std::prev(waiting_.end()));
  ENGINE_CHECK(fresh, "sequence %llu added twice", Number(id));
  sequence.id = id;
  sequence.arrival = next_arrival_++;
  sequence.arrived_at = now;
  sequence.prompt_length = prompt_length;
  sequence.length_max = length_max;
  sequence.tokens = std::move(request.prompt);
  sequence.tokens.reserve(static_cast<size_t>(length_max));
  sequence.stop_tokens = std::move(request.stop_tokens);
  sequence.sampling = std::move(request.sampling);
  if (request.min_tokens > 0) {
    sequence.min_tokens = request.min_tokens;
    sequence.early_sampling = sequence.sampling;
    sequence.early_sampling.allowed = std::move(request.early_allowed);
  }
  sequence.blocks.reserve(static_cast<size_t>(BlocksFor(length_max)));
  queued_known_ += prompt_length;
}

bool Scheduler::Cancel(SequenceId id) {
  const auto found = live_.find(id);
  if (found == live_.end()) return false;
  End(found->second);
  return true;
}

StepPlan& Scheduler::EmptyPlan() {
  StepPlan& plan = plans_[(plans_made_ + 1) % 2];
  plan.number = plans_made_ + 1;
  plan.tokens.clear();
  plan.block_table.clear();
  plan.sequences.clear();
  samples_planned_ = 0;
  return plan;
}

const StepPlan& Scheduler::Plan() {
  ENGINE_CHECK(plans_made_ == plans_done_, "step %llu was not committed", Number(plans_made_));
  StepPlan& plan = EmptyPlan();
  if (idle()) return plan;
  const bool all_stayed = SecureRunning();
  int32_t budget = options_.step_tokens;
  for (Sequence& sequence : running_) {
    const int32_t count = std::min(sequence.known() - sequence.computed, budget);
    if (count == 0) break;
    Schedule(plan, sequence, count);
    budget -= count;
  }
  if (all_stayed) AdmitWaiting(plan, budget);
  ENGINE_CHECK(!plan.empty(), "%d run, %d wait, nothing to do", running(), waiting());
  ++plans_made_;
  return plan;
}

// The token that the open plan chooses for a sequence counts as known, but for
// its value; whose answer ends with it by its length is left alone.
const StepPlan* Scheduler::PlanAhead() {
  ENGINE_CHECK(plans_made_ == plans_done_ + 1, "%llu plans made, %llu committed",
               Number(plans_made_), Number(plans_done_));
  if (!SecureAhead()) return nullptr;
  StepPlan& plan = EmptyPlan();
  int32_t budget = options_.step_tokens;
  for (Sequence& sequence : running_) {
    if (EndsNow(sequence)) continue;
    const int32_t known = sequence.known() + (Awaits(sequence) ? 1 : 0);
    const int32_t count = std::min(known - sequence.computed - sequence.planned, budget);
    if (count == 0) break;
    Schedule(plan, sequence, count);
    budget -= count;
  }
  AdmitWaiting(plan, budget);
  if (plan.empty()) return nullptr;
  ++plans_made_;
  return &plan;
}

bool Scheduler::Awaits(const Sequence& sequence) const {
  return plans_made_ > plans_done_ && sequence.sampled_by == plans_made_;
}

// Its last allowed token is on the way.
bool Scheduler::EndsNow(const Sequence& sequence) const {
  return Awaits(sequence) && sequence.known() + 1 >= sequence.length_max;
}

// Gives every running sequence the blocks for the next step too. False: there are
// too few, and whom to preempt is better said when the open step has ended some.
bool Scheduler::SecureAhead() {
  for (Sequence& sequence : running_) {
    if (EndsNow(sequence)) continue;
    const int32_t missing = BlocksFor(sequence.known() + (Awaits(sequence) ? 1 : 0)) -
                            static_cast<int32_t>(sequence.blocks.size());
    if (missing > 0 && !pool_.Take(sequence.id, missing, sequence.blocks)) return false;
  }
  return true;
}

// Gives every running sequence the blocks for all it knows; preempts where
// there are too few. False: somebody was preempted.
bool Scheduler::SecureRunning() {
  bool all_stayed = true;
  for (auto it = running_.begin(); it != running_.end();) {
    const auto current = it++;
    const int32_t missing =
        std::max(BlocksFor(current->known()) - static_cast<int32_t>(current->blocks.size()), 0);
    while (current->running && !pool_.Take(current->id, missing, current->blocks)) {
      const auto victim = Victim();
      ENGINE_CHECK(running_.size() > 1, "sequence %llu alone does not fit", Number(victim->id));
      if (victim == it) ++it;
      Preempt(victim);
      all_stayed = false;
    }
  }
  return all_stayed;
}

Scheduler::Sequences::iterator Scheduler::Victim() {
  const auto before = [](const Sequence& a, const Sequence& b) {
    const bool a_settled = a.preemptions >= kPreemptionsMax;
    const bool b_settled = b.preemptions >= kPreemptionsMax;
    if (a_settled != b_settled) return b_settled;
    if (!a_settled && a.computed != b.computed) return a.computed < b.computed;
    return a.arrival > b.arrival;
  };
  return std::min_element(running_.begin(), running_.end(), before);
}

void Scheduler::Preempt(Sequences::iterator victim) {
  ++totals_.preemptions;
  totals_.recomputed_tokens += static_cast<uint64_t>(victim->computed);
  growth_share_ = std::min(1.0, growth_share_ + kGrowthShareRise);
  pool_.Give(victim->id, victim->blocks);
  free_slots_.push_back(victim->slot);
  victim->slot = -1;
  victim->computed = 0;
  victim->running = false;
  ++victim->preemptions;
  queued_known_ += victim->known();
  const auto place = std::find_if(waiting_.begin(), waiting_.end(), [&](const Sequence& other) {
    return other.arrival > victim->arrival;
  });
  waiting_.splice(place, running_, victim);
}

void Scheduler::AdmitWaiting(StepPlan& plan, int32_t budget) {
  growth_share_ = std::max(kGrowthShareMin, growth_share_ - kGrowthShareFade);
  int32_t growth = 0;
  for (const Sequence& sequence : running_) growth += GrowthBlocks(sequence);
  while (budget > 0 && !waiting_.empty() && running() < options_.max_running) {
    const auto next = waiting_.begin();
    const int32_t needed = BlocksFor(next->known());
    growth += GrowthBlocks(*next);
    if (!running_.empty() && needed + growth > pool_.free_count()) return;
    const bool taken = pool_.Take(next->id, needed, next->blocks);
    ENGINE_CHECK(taken, "sequence %llu: %d blocks of %d", Number(next->id), needed,
                 pool_.free_count());
    queued_known_ -= next->known();
    LeaveQueue(*next);
    next->running = true;
    next->slot = free_slots_.back();
    free_slots_.pop_back();
    running_.splice(running_.end(), waiting_, next);
    const int32_t count = std::min(next->known(), budget);
    Schedule(plan, *next, count);
    budget -= count;
  }
}

void Scheduler::LeaveQueue(Sequence& sequence) {
  if (sequence.ran_before) return;
  sequence.ran_before = true;
  ++totals_.left_queue;
  totals_.left_queue_tokens += static_cast<uint64_t>(sequence.prompt_length);
}

void Scheduler::Schedule(StepPlan& plan, Sequence& sequence, int32_t count) {
  const int32_t start = sequence.computed + sequence.planned;
  const int32_t beyond = start + count - sequence.known();  // 1: the awaited token.
  StepSequence& entry = plan.sequences.emplace_back();
  entry.id = sequence.id;
  entry.slot = sequence.slot;
  entry.first_token = static_cast<int32_t>(plan.tokens.size());
  entry.token_count = count;
  entry.start = start;
  entry.first_block = static_cast<int32_t>(plan.block_table.size());
  entry.block_count = BlocksFor(start + count);
  entry.awaited = beyond > 0 ? sequence.sample_index : -1;
  entry.sample = beyond >= (Awaits(sequence) ? 1 : 0);
  const bool early = sequence.generated() + std::max(beyond, 0) < sequence.min_tokens;
  entry.sampling = early ? &sequence.early_sampling : &sequence.sampling;
  entry.history = sequence.tokens;
  entry.prompt_length = sequence.prompt_length;
  if (beyond > 0) {
    ENGINE_CHECK(count == 1, "sequence %llu: %d tokens with one awaited", Number(sequence.id), count);
    plan.tokens.push_back(0);
  } else {
    const auto first = sequence.tokens.begin() + start;
    plan.tokens.insert(plan.tokens.end(), first, first + count);
  }
  plan.block_table.insert(plan.block_table.end(), sequence.blocks.begin(),
                          sequence.blocks.begin() + entry.block_count);
  sequence.planned += count;
  if (!entry.sample) return;
  sequence.sample_index = samples_planned_++;
  sequence.sampled_by = plan.number;
}

void Scheduler::Commit(const StepPlan& plan, StepResult& result, double now,
                       std::vector<TokenEvent>& events) {
  ENGINE_CHECK(plans_made_ > plans_done_ && plan.number == plans_done_ + 1 &&
                   &plan == &plans_[plan.number % 2] && result.number == plan.number,
               "result of step %llu for step %llu, due is %llu", Number(result.number),
               Number(plan.number), Number(plans_done_ + 1));
  ++plans_done_;
  ++totals_.steps;
  first_token_waits_.clear();
  size_t next_sample = 0;
  for (const StepSequence& entry : plan.sequences) {
    SampledToken* sampled = nullptr;
    if (entry.sample) {
      ENGINE_CHECK(next_sample < result.sampled.size() &&
                       result.sampled[next_sample].id == entry.id,
                   "step %llu: no token for sequence %llu", Number(plan.number), Number(entry.id));
      sampled = &result.sampled[next_sample++];
    }
    const auto found = live_.find(entry.id);
    if (found == live_.end()) {  // It ended while this step was on its way.
      totals_.vain_tokens += static_cast<uint64_t>(entry.token_count);
      continue;
    }
    const auto sequence = found->second;
    if (sequence->backlog() > 0) totals_.prefill_tokens += static_cast<uint64_t>(entry.token_count);
    sequence->computed += entry.token_count;
    sequence->planned -= entry.token_count;
    if (sampled == nullptr) continue;
    TokenEvent& event = events.emplace_back();
    AppendToken(*sequence, *sampled, now, event);
    if (event.finish != FinishReason::kNone) End(sequence);
  }
}

void Scheduler::AppendToken(Sequence& sequence, SampledToken& sampled, double now,
                            TokenEvent& event) {
  event.id = sequence.id;
  if (sampled.invalid) {
    event.finish = FinishReason::kFailed;
    const std::string place = "position " + std::to_string(sequence.known());
    event.error = sampled.forbidden
                      ? "the mask of allowed tokens allows none at " + place + ", token " +
                            std::to_string(sequence.generated() + 1) +
                            " of the answer; it must allow at least one, or a stop token"
                      : "the logits were not finite at " + place;
    return;
  }
  if (sequence.generated() == 0) {
    first_token_waits_.push_back(now - sequence.arrived_at);
    totals_.prompt_tokens += static_cast<uint64_t>(sequence.prompt_length);
  }
  ++totals_.generated_tokens;
  sequence.tokens.push_back(sampled.token);
  event.token = sampled.token;
  event.logprob = sampled.logprob;
  event.top = std::move(sampled.top);
  if (std::find(sequence.stop_tokens.begin(), sequence.stop_tokens.end(), sampled.token) !=
      sequence.stop_tokens.end()) {
    event.finish = FinishReason::kStop;
  } else if (sequence.known() == sequence.length_max) {
    event.finish = FinishReason::kLength;
  }
  if (event.finish != FinishReason::kNone) {
    const double length = sequence.generated();
    answer_tokens_ += (length - answer_tokens_) * kAnswerWeight;
    answer_squares_ += (length * length - answer_squares_) * kAnswerWeight;
  }
}

void Scheduler::End(Sequences::iterator sequence) {
  live_.erase(sequence->id);
  LeaveQueue(*sequence);
  if (!sequence->running) {
    queued_known_ -= sequence->known();
    waiting_.erase(sequence);
    return;
  }
  pool_.Give(sequence->id, sequence->blocks);
  free_slots_.push_back(sequence->slot);
  running_.erase(sequence);
}

void Scheduler::FailAll(std::string_view error, std::vector<TokenEvent>& events) {
  plans_done_ = plans_made_;
  for (Sequences* sequences : {&running_, &waiting_}) {
    while (!sequences->empty()) {
      TokenEvent& event = events.emplace_back();
      event.id = sequences->front().id;
      event.finish = FinishReason::kFailed;
      event.error = error;
      End(sequences->begin());
    }
  }
}

int64_t Scheduler::waiting_tokens() const {
  int64_t tokens = queued_known_;
  for (const Sequence& sequence : running_) tokens += sequence.backlog();
  return tokens;
}

int64_t Scheduler::running_tokens() const {
  int64_t tokens = 0;
  for (const Sequence& sequence : running_) tokens += sequence.computed;
  return tokens;
}

std::string Scheduler::CheckInvariants() const {
  if (std::string wrong = pool_.CheckInvariant(); !wrong.empty()) return wrong;
  if (live_.size() != running_.size() + waiting_.size()) return "live table differs from lists";
  if (free_slots_.size() + running_.size() != static_cast<size_t>(options_.max_running)) {
    return "a slot is lost";
  }
  int64_t known = 0;
  const Sequence* before = nullptr;
  for (const Sequence& sequence : waiting_) {
    const auto wrong = [&](const char* what) { return std::to_string(sequence.id) + what; };
    if (sequence.running || sequence.slot >= 0) return wrong(" waits with a slot");
    if (!sequence.blocks.empty() || sequence.computed != 0) return wrong(" waits with blocks");
    if (before != nullptr && sequence.arrival < before->arrival) return wrong(" was overtaken");
    before = &sequence;
    known += sequence.known();
  }
  if (known != queued_known_) return "tokens of those that wait are miscounted";
  int32_t blocks = 0;
  std::vector<bool> slots(static_cast<size_t>(options_.max_running), false);
  for (const Sequence& sequence : running_) {
    const auto wrong = [&](const char* what) { return std::to_string(sequence.id) + what; };
    if (!sequence.running || sequence.slot < 0) return wrong(" runs without a slot");
    const auto slot = static_cast<size_t>(sequence.slot);
    if (slots[slot]) return wrong(" shares its slot");
    slots[slot] = true;
    if (sequence.computed >= sequence.known()) return wrong(" has nothing to compute");
    for (const int32_t block : sequence.blocks) {
      if (pool_.owner(block) != sequence.id) return wrong(" uses a block of another");
    }
    if (plans_made_ == plans_done_ && sequence.planned != 0) return wrong(" is in a lost plan");
    if (BlocksFor(sequence.computed + sequence.planned) >
        static_cast<int32_t>(sequence.blocks.size())) {
      return wrong(" computes more than its blocks hold");
    }
    blocks += static_cast<int32_t>(sequence.blocks.size());
  }
  if (blocks != pool_.used()) return "blocks of nobody are in use";
  return "";
}

}  // namespace penstock::engine
