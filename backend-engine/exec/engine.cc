// The engine thread and the door to it.
//
// The scheduler, the runner and the measurements belong to the engine thread
// alone. Everybody else meets it at the inbox, under one lock that is held for
// a few pushes and never while a step runs or the sink is called. The inbox is
// bounded: submissions by Admission, cancels because only live sequences that
// were not cancelled before are taken. Load() takes no lock.
//
// This file reads the clock; the scheduler and everything it uses are told.
#include "backend-engine/exec/engine.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>
#include <tuple>
#include <unordered_map>
#include <utility>
#include <vector>

#include "backend-engine/exec/measurements.h"
#include "backend-engine/exec/snapshot.h"
#include "backend-engine/sched/admission.h"
#include "backend-engine/sched/scheduler.h"

namespace penstock::engine {
namespace {

double Now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

SchedulerOptions MakeSchedulerOptions(const RunnerInfo& info, const EngineOptions& options) {
  SchedulerOptions result;
  result.block_tokens = info.block_tokens;
  result.block_count = info.block_count;
  result.step_tokens = std::max(std::min(options.step_tokens, info.max_step_tokens), 1);
  result.max_running = std::max(
      std::min({options.max_running, info.max_sequences, result.step_tokens}), 1);
  return result;
}

AdmissionOptions MakeAdmissionOptions(const RunnerInfo& info, const EngineOptions& options) {
  return {.queue_max = options.queue_max,
          .queue_tokens_max = options.queue_tokens_max,
          .max_length = options.max_length,
          .block_tokens = info.block_tokens,
          .block_count = info.block_count,
          .vocab_size = info.vocab_size};
}

SubmitResult Refuse(SubmitCode code, std::string message) {
  return {.code = code, .message = std::move(message)};
}

}  // namespace

class Engine::Impl {
 public:
  Impl(std::unique_ptr<Runner> runner, EngineOptions options, Sink sink,
       std::function<void()> on_load);
  ~Impl();

  SubmitResult Submit(std::vector<GenerateRequest> group);
  void Cancel(SequenceId id);
  void ForgetSpeed();
  void Drain();
  bool idle() const;
  EngineLoad Load() const;
  const RunnerInfo& info() const { return runner_->info(); }

 private:
  struct Submission {
    SequenceId id = 0;
    GenerateRequest request;
    double at = 0;
  };
  struct Published {
    EngineLoad load;
    double step_started = 0;  // 0: between steps.
  };

  void Loop();
  bool TakeInbox();
  bool StepAlone();
  bool StepAhead();
  void Announce(const StepPlan& plan);
  void Commit(const StepPlan& plan);
  void Publish();
  void Fail(const std::string& error);

  SubmitResult Enqueue(std::vector<GenerateRequest>& group);
  bool UpdateLoad(double step_started);
  void StoreLoad();
  void NotifyLoad() const {
    if (on_load_) on_load_();
  }

  const std::unique_ptr<Runner> runner_;
  const EngineOptions options_;
  const Sink sink_;
  const std::function<void()> on_load_;

  // Engine thread only.
  Scheduler scheduler_;
  Measurements measurements_;
  StepResult result_;
  std::vector<TokenEvent> events_;
  std::vector<Submission> taken_;
  std::vector<SequenceId> taken_cancels_;
  const StepPlan* flight_ = nullptr;  // The oldest step that was started and not finished.
  double step_started_ = 0;

  // Under mutex_.
  mutable std::mutex mutex_;
  std::condition_variable wake_;
  Admission admission_;
  std::vector<Submission> inbox_;
  std::vector<SequenceId> cancels_;
  std::unordered_map<SequenceId, bool> live_;  // True: its cancel is on the way.
  SequenceId next_id_ = 1;
  uint64_t left_queue_ = 0;  // What Admission was told of the scheduler's totals.
  uint64_t left_queue_tokens_ = 0;
  bool stopping_ = false;
  std::atomic<bool> runner_failed_{false};  // Maybe while no step was under way.
  bool draining_ = false;
  bool forget_speed_ = false;  // The engine thread is to empty measurements_.
  std::string failure_;
  Published current_;

  Snapshot<Published> published_;  // Written under mutex_, read by anybody.
  std::thread thread_;
};

Engine::Impl::Impl(std::unique_ptr<Runner> runner, EngineOptions options, Sink sink,
                   std::function<void()> on_load)
    : runner_(std::move(runner)),
      options_(options),
      sink_(std::move(sink)),
      on_load_(std::move(on_load)),
      scheduler_(MakeSchedulerOptions(runner_->info(), options)),
      admission_(MakeAdmissionOptions(runner_->info(), options)) {
  const auto rows = static_cast<size_t>(scheduler_.options().max_running);
  result_.sampled.reserve(rows);
  events_.reserve(rows);
  current_.load.state = NodeState::kReady;
  current_.load.max_running = scheduler_.options().max_running;
  current_.load.kv_blocks_total = scheduler_.pool().total();
  StoreLoad();
  thread_ = std::thread([this] { Loop(); });
  runner_->OnFailure([this] {
    const std::lock_guard lock(mutex_);
    runner_failed_ = true;
    wake_.notify_one();
  });
}

Engine::Impl::~Impl() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_one();
  runner_->OnFailure({});
  runner_->Abort();
  thread_.join();
}

// --- the engine thread

void Engine::Impl::Loop() {
  while (TakeInbox()) {
    if (!(runner_->info().steps_ahead > 0 ? StepAhead() : StepAlone())) {
      return Fail(runner_->error());
    }
    Publish();
  }
  Fail(runner_failed_ ? runner_->error() : "the engine is shutting down");
}

// False, here and below: the runner failed.
bool Engine::Impl::StepAlone() {
  const StepPlan& plan = scheduler_.Plan();
  step_started_ = Now();
  Announce(plan);
  if (plan.empty()) return true;
  result_.sampled.clear();
  result_.number = plan.number;
  if (runner_->Run(plan, result_) != RunStatus::kOk) return false;
  Commit(plan);
  return true;
}

// The step after the one in flight is planned and started while that one runs, so
// that the device never waits for us; then its result is waited for.
bool Engine::Impl::StepAhead() {
  if (flight_ == nullptr) {
    const StepPlan& plan = scheduler_.Plan();
    step_started_ = Now();
    Announce(plan);
    if (plan.empty()) return true;
    if (runner_->Start(plan) != RunStatus::kOk) return false;
    flight_ = &plan;
  }
  const StepPlan& plan = *flight_;
  const StepPlan* next = scheduler_.PlanAhead();
  if (next != nullptr) {
    Announce(*next);
    if (runner_->Start(*next) != RunStatus::kOk) return false;
  }
  result_.sampled.clear();
  if (runner_->Finish(result_) != RunStatus::kOk) return false;
  Commit(plan);
  step_started_ = Now();
  flight_ = next;
  return true;
}

// Waits until there is something to do, and takes in what was asked since the
// last step. False: stop.
bool Engine::Impl::TakeInbox() {
  {
    std::unique_lock lock(mutex_);
    wake_.wait(lock, [this] {
      return stopping_ || runner_failed_ || !inbox_.empty() || !cancels_.empty() || !scheduler_.idle() ||
             flight_ != nullptr;
    });
    if (stopping_ || runner_failed_) return false;
    taken_.swap(inbox_);
    taken_cancels_.swap(cancels_);
  }
  for (Submission& submission : taken_) {
    scheduler_.Add(submission.id, std::move(submission.request), submission.at);
  }
  for (const SequenceId id : taken_cancels_) {
    if (!scheduler_.Cancel(id)) continue;  // It ended in the meantime.
    TokenEvent& event = events_.emplace_back();
    event.id = id;
    event.finish = FinishReason::kCancelled;
  }
  taken_.clear();
  taken_cancels_.clear();
  return true;
}

// Tells the world what this step is about to do: who waits, runs and holds blocks
// is known before a long step, not after. The plan is empty after the last sequence
// was cancelled.
void Engine::Impl::Announce(const StepPlan& plan) {
  bool moved = false;
  {
    const std::lock_guard lock(mutex_);
    moved = UpdateLoad(plan.empty() ? 0 : step_started_);
  }
  if (moved) NotifyLoad();
}

void Engine::Impl::Commit(const StepPlan& plan) {
  const double now = Now();
  const uint64_t prefilled_before = scheduler_.totals().prefill_tokens;
  scheduler_.Commit(plan, result_, now, events_);
  const uint64_t prefilled = scheduler_.totals().prefill_tokens - prefilled_before;
  measurements_.OnStep(static_cast<int64_t>(prefilled), now - step_started_);
  measurements_.OnFirstTokens(scheduler_.first_token_waits());
}

// The load first, so that whoever hears of an end already reads it as ended.
void Engine::Impl::Publish() {
  {
    const std::lock_guard lock(mutex_);
    UpdateLoad(flight_ != nullptr ? step_started_ : 0);
  }
  if (!events_.empty()) sink_(events_);
  {
    const std::lock_guard lock(mutex_);
    for (const TokenEvent& event : events_) {
      if (event.finish != FinishReason::kNone) live_.erase(event.id);
    }
  }
  events_.clear();
  NotifyLoad();
}

// The end of the engine: nobody is let in any more and everybody in it is told.
void Engine::Impl::Fail(const std::string& error) {
  {
    const std::lock_guard lock(mutex_);
    failure_ = error.empty() ? "the runner failed and did not say why" : error;
    taken_.swap(inbox_);
    cancels_.clear();
    current_.load.state = NodeState::kFailed;
  }
  for (const Submission& submission : taken_) {
    TokenEvent& event = events_.emplace_back();
    event.id = submission.id;
    event.finish = FinishReason::kFailed;
    event.error = failure_;
  }
  taken_.clear();
  flight_ = nullptr;
  scheduler_.FailAll(failure_, events_);
  Publish();
}

// True: sequences started, ended or were preempted since the last call.
// REQUIRES: mutex_ is held, by the engine thread.
bool Engine::Impl::UpdateLoad(double step_started) {
  const SchedulerTotals& totals = scheduler_.totals();
  admission_.OnLeft(static_cast<int32_t>(totals.left_queue - left_queue_),
                    static_cast<int64_t>(totals.left_queue_tokens - left_queue_tokens_), Now());
  left_queue_ = totals.left_queue;
  left_queue_tokens_ = totals.left_queue_tokens;

  if (std::exchange(forget_speed_, false)) measurements_ = {};
  EngineLoad& load = current_.load;
  const auto counts = [&load] { return std::tuple(load.running, load.waiting); };
  const auto before = counts();
  load.running = scheduler_.running();
  load.waiting = scheduler_.waiting();
  load.waiting_tokens = scheduler_.waiting_tokens();
  for (const Submission& submission : inbox_) {
    ++load.waiting;
    load.waiting_tokens += static_cast<int64_t>(submission.request.prompt.size());
  }
  load.running_tokens = scheduler_.running_tokens();
  load.kv_blocks_used = scheduler_.pool().used();
  load.prefill_tokens_per_s = static_cast<float>(measurements_.prefill_tokens_per_second());
  load.step_ms = static_cast<float>(measurements_.step_seconds() * 1e3);
  load.ttft_ms_p50 = static_cast<float>(measurements_.ttft_p50_seconds() * 1e3);
  load.preemptions = totals.preemptions;
  load.steps = totals.steps;
  load.prompt_tokens = totals.prompt_tokens;
  load.generated_tokens = totals.generated_tokens;
  current_.step_started = step_started;
  StoreLoad();
  return counts() != before;
}

void Engine::Impl::StoreLoad() {
  ++current_.load.seq;
  published_.Store(current_);
}

// --- any thread

SubmitResult Engine::Impl::Submit(std::vector<GenerateRequest> group) {
  SubmitResult result = Enqueue(group);
  if (result.code == SubmitCode::kOk) {
    wake_.notify_one();
    NotifyLoad();
  }
  return result;
}

SubmitResult Engine::Impl::Enqueue(std::vector<GenerateRequest>& group) {
  const std::lock_guard lock(mutex_);
  if (!failure_.empty()) return Refuse(SubmitCode::kFailed, failure_);
  if (stopping_) return Refuse(SubmitCode::kFailed, "the engine is shutting down");
  if (draining_) return Refuse(SubmitCode::kDraining, "the engine is draining");
  const double now = Now();
  if (current_.step_started > 0 && now - current_.step_started > options_.stall_seconds) {
    return Refuse(SubmitCode::kFailed, "the step in progress has been running for more than " +
                                           std::to_string(options_.stall_seconds) +
                                           " s (stall_seconds)");
  }
  SubmitResult result = admission_.Offer(group, now);
  if (result.code != SubmitCode::kOk) return result;
  result.id = next_id_;
  for (GenerateRequest& request : group) {
    ++current_.load.waiting;
    current_.load.waiting_tokens += static_cast<int64_t>(request.prompt.size());
    live_.emplace(next_id_, false);
    inbox_.push_back({next_id_++, std::move(request), now});
  }
  StoreLoad();
  return result;
}

void Engine::Impl::Cancel(SequenceId id) {
  {
    const std::lock_guard lock(mutex_);
    const auto found = live_.find(id);
    if (found == live_.end() || found->second || !failure_.empty()) return;
    found->second = true;
    cancels_.push_back(id);
  }
  wake_.notify_one();
}

void Engine::Impl::ForgetSpeed() {
  const std::lock_guard lock(mutex_);
  forget_speed_ = true;
  current_.load.prefill_tokens_per_s = 0;
  current_.load.step_ms = 0;
  current_.load.ttft_ms_p50 = 0;
  StoreLoad();
}

void Engine::Impl::Drain() {
  {
    const std::lock_guard lock(mutex_);
    draining_ = true;
    if (current_.load.state == NodeState::kReady) current_.load.state = NodeState::kDraining;
    StoreLoad();
  }
  NotifyLoad();
}

bool Engine::Impl::idle() const {
  const std::lock_guard lock(mutex_);
  return live_.empty();
}

EngineLoad Engine::Impl::Load() const {
  Published published = published_.Load();
  if (published.step_started > 0) {
    published.load.seconds_in_step = std::max(Now() - published.step_started, 0.0);
    if (published.load.seconds_in_step > options_.stall_seconds) {
      published.load.state = NodeState::kFailed;
    }
  }
  return published.load;
}

// --- the public face

Engine::Engine(std::unique_ptr<Runner> runner, EngineOptions options, Sink sink,
               std::function<void()> on_load)
    : impl_(std::make_unique<Impl>(std::move(runner), options, std::move(sink),
                                   std::move(on_load))) {}
Engine::~Engine() = default;
SubmitResult Engine::Submit(GenerateRequest request) {
  std::vector<GenerateRequest> group;
  group.push_back(std::move(request));
  return impl_->Submit(std::move(group));
}
SubmitResult Engine::Submit(std::vector<GenerateRequest> group) {
  return impl_->Submit(std::move(group));
}
void Engine::Cancel(SequenceId id) { impl_->Cancel(id); }
void Engine::ForgetSpeed() { impl_->ForgetSpeed(); }
void Engine::Drain() { impl_->Drain(); }
bool Engine::idle() const { return impl_->idle(); }
EngineLoad Engine::Load() const { return impl_->Load(); }
const RunnerInfo& Engine::info() const { return impl_->info(); }

}  // namespace penstock::engine
