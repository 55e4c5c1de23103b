// The engine thread over the emulated runner at no cost in time: no sleeps, no
// timed assertions; a test waits for an event or a state, for ever if need be.
#include "backend-engine/exec/engine.h"

#include <gtest/gtest.h>

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#include "backend-engine/exec/emulated_runner.h"
#include "tests/backend-engine/exec/answers.h"

namespace penstock::engine {
namespace {

EmulatedOptions Instant() {
  EmulatedOptions options;
  options.timing = *FindTimingTable("instant");
  options.vocab_size = 1000;
  for (int32_t token = 100; token < 200; ++token) options.plain_tokens.push_back(token);
  options.block_count = 256;
  return options;
}

// One step takes as good as for ever, until it is aborted.
EmulatedOptions Endless() {
  EmulatedOptions options = Instant();
  options.timing.fixed_ms = 1e9;
  return options;
}

std::unique_ptr<Runner> MakeRunner(const EmulatedOptions& options) {
  return std::make_unique<EmulatedRunner>(options);
}

// A device whose every step waits until the test lets it pass.
class SteppedRunner final : public Runner {
 public:
  SteppedRunner() {
    info_.block_count = 64;
    info_.max_step_tokens = 64;
    info_.max_sequences = 8;
  }
  const RunnerInfo& info() const override { return info_; }
  std::string error() const override { return "aborted"; }

  RunStatus Run(const StepPlan& plan, StepResult& result) override {
    std::unique_lock lock(mutex_);
    sequences_ = static_cast<int>(plan.sequences.size());
    changed_.notify_all();
    changed_.wait(lock, [this] { return passes_ > 0 || aborted_; });
    --passes_;
    sequences_ = 0;
    for (const StepSequence& sequence : plan.sequences) {
      if (sequence.sample) result.sampled.push_back({.id = sequence.id, .token = 5});
    }
    return aborted_ ? RunStatus::kFailed : RunStatus::kOk;
  }

  void Abort() override {
    const std::lock_guard lock(mutex_);
    aborted_ = true;
    changed_.notify_all();
  }

  // How many sequences the step that has begun holds.
  int WaitForRun() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return passes_ <= 0 && sequences_ > 0; });
    return sequences_;
  }

  void LetItPass() {
    const std::lock_guard lock(mutex_);
    ++passes_;
    changed_.notify_all();
  }

 private:
  RunnerInfo info_;
  std::mutex mutex_;
  std::condition_variable changed_;
  int passes_ = 0;
  int sequences_ = 0;  // Of the step that waits; 0: none does.
  bool aborted_ = false;
};

template <typename Condition>
void WaitFor(const Condition& condition) {
  while (!condition()) std::this_thread::yield();
}

GenerateRequest Request(int32_t prompt_tokens, int32_t max_tokens) {
  GenerateRequest request;
  request.prompt.assign(static_cast<size_t>(prompt_tokens), 7);
  request.max_tokens = max_tokens;
  request.sampling.temperature = 0;
  return request;
}

TEST(Engine, AnswersARequestToItsLastToken) {
  Answers answers;
  Engine engine(MakeRunner(Instant()), {}, answers.sink());
  const SubmitResult submitted = engine.Submit(Request(40, 12));
  ASSERT_EQ(submitted.code, SubmitCode::kOk);
  const auto answer = answers.WaitForEnd(submitted.id);
  EXPECT_EQ(answer.tokens.size(), 12u);
  EXPECT_EQ(answer.finish, FinishReason::kLength);
}

TEST(Engine, GivesTheSameAnswerInACrowdAndInSmallChunks) {
  Answers alone;
  Engine quiet(MakeRunner(Instant()), {}, alone.sink());
  const auto expected = alone.WaitForEnd(quiet.Submit(Request(300, 20)).id);

  Answers crowd;
  EmulatedOptions small = Instant();
  small.block_count = 48;
  Engine busy(MakeRunner(small), {.max_running = 8, .step_tokens = 16}, crowd.sink());
  std::vector<SequenceId> ids;
  for (int i = 0; i < 30; ++i) ids.push_back(busy.Submit(Request(300, 20)).id);
  for (const SequenceId id : ids) EXPECT_EQ(crowd.WaitForEnd(id).tokens, expected.tokens);
}

TEST(Engine, RefusesWhatCanNeverFit) {
  Answers answers;
  Engine engine(MakeRunner(Instant()), {.max_length = 1000}, answers.sink());
  const SubmitResult long_one = engine.Submit(Request(990, 11));
  EXPECT_EQ(long_one.code, SubmitCode::kTooLong);
  EXPECT_EQ(long_one.message,
            "the prompt has 990 tokens and max_tokens is 11, together 1001; this model allows "
            "1000");
  EXPECT_EQ(engine.Submit(Request(0, 11)).code, SubmitCode::kInvalid);
  EXPECT_TRUE(engine.idle());
}

TEST(Engine, CancelledSequencesEndAndLeaveNoBlockInUse) {
  Answers answers;
  Engine engine(MakeRunner(Instant()), {}, answers.sink());
  std::vector<SequenceId> ids;
  for (int i = 0; i < 20; ++i) ids.push_back(engine.Submit(Request(30, 3000)).id);
  answers.WaitForToken(ids.front());
  for (const SequenceId id : ids) engine.Cancel(id);
  for (const SequenceId id : ids) {
    engine.Cancel(id);  // Twice is harmless.
    const FinishReason finish = answers.WaitForEnd(id).finish;
    EXPECT_TRUE(finish == FinishReason::kCancelled || finish == FinishReason::kLength);
  }
  EXPECT_EQ(engine.Load().kv_blocks_used, 0);
}

TEST(Engine, ARunnerThatFailsEndsEverySequenceAndRefusesNewOnes) {
  Answers answers;
  auto runner = MakeRunner(Endless());
  Runner& device = *runner;
  Engine engine(std::move(runner), {.max_running = 2}, answers.sink());
  std::vector<SequenceId> ids;
  for (int i = 0; i < 5; ++i) ids.push_back(engine.Submit(Request(30, 5)).id);
  device.Abort();
  for (const SequenceId id : ids) {
    const auto answer = answers.WaitForEnd(id);
    EXPECT_EQ(answer.finish, FinishReason::kFailed);
    EXPECT_FALSE(answer.error.empty());
  }
  EXPECT_EQ(engine.Load().state, NodeState::kFailed);
  EXPECT_EQ(engine.Submit(Request(1, 1)).code, SubmitCode::kFailed);
}

TEST(Engine, EndsEverySequenceWhenItIsDestroyed) {
  Answers answers;
  std::vector<SequenceId> ids;
  {
    Engine engine(MakeRunner(Endless()), {.max_running = 2}, answers.sink());
    for (int i = 0; i < 5; ++i) ids.push_back(engine.Submit(Request(30, 5)).id);
  }
  for (const SequenceId id : ids) EXPECT_EQ(answers.WaitForEnd(id).finish, FinishReason::kFailed);
}

TEST(Engine, DrainingFinishesWhatRunsAndRefusesTheRest) {
  Answers answers;
  Engine engine(MakeRunner(Instant()), {}, answers.sink());
  const SequenceId id = engine.Submit(Request(30, 500)).id;
  engine.Drain();
  EXPECT_EQ(engine.Load().state, NodeState::kDraining);
  EXPECT_EQ(engine.Submit(Request(1, 1)).code, SubmitCode::kDraining);
  EXPECT_EQ(answers.WaitForEnd(id).tokens.size(), 500u);
}

TEST(Engine, AFullQueueSaysWhenToComeBack) {
  Answers answers;
  Engine engine(MakeRunner(Endless()), {.queue_max = 3, .max_running = 1}, answers.sink());
  engine.Submit(Request(10, 10));
  WaitFor([&] { return engine.Load().running == 1; });
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(engine.Submit(Request(10, 10)).code, SubmitCode::kOk);
    EXPECT_EQ(engine.Load().waiting, i + 1);
  }
  const SubmitResult full = engine.Submit(Request(10, 10));
  EXPECT_EQ(full.code, SubmitCode::kQueueFull);
  EXPECT_GT(full.retry_after_seconds, 0);
  EXPECT_LE(full.retry_after_seconds, 60);
  EXPECT_EQ(engine.Load().waiting, 3);
}

TEST(Engine, ThePlaceOfACancelledRequestInTheQueueIsFreeInTheNextStep) {
  Answers answers;
  auto runner = std::make_unique<SteppedRunner>();
  SteppedRunner& device = *runner;
  Engine engine(std::move(runner), {.queue_max = 1, .max_running = 1}, answers.sink());
  const SequenceId first = engine.Submit(Request(10, 10)).id;
  device.WaitForRun();
  const SequenceId second = engine.Submit(Request(10, 10)).id;
  EXPECT_EQ(engine.Submit(Request(10, 10)).code, SubmitCode::kQueueFull);
  engine.Cancel(second);
  device.LetItPass();
  device.WaitForRun();  // The next step: the cancel is done before it.
  EXPECT_EQ(engine.Submit(Request(10, 10)).code, SubmitCode::kOk);
  device.LetItPass();
  EXPECT_EQ(answers.WaitForEnd(second).finish, FinishReason::kCancelled);
  engine.Cancel(first);
}

TEST(Engine, ACancelledSequenceHoldsNoBlockInTheNextStep) {
  Answers answers;
  auto runner = std::make_unique<SteppedRunner>();
  SteppedRunner& device = *runner;
  Engine engine(std::move(runner), {.max_running = 2}, answers.sink());
  const SequenceId first = engine.Submit(Request(40, 10)).id;
  device.WaitForRun();
  engine.Submit(Request(5, 10));
  engine.Cancel(first);
  device.LetItPass();
  EXPECT_EQ(device.WaitForRun(), 1);
  EXPECT_EQ(engine.Load().kv_blocks_used, 1);
}

TEST(Engine, TheSinkMayCallTheEngine) {
  // A lock held around the sink would hang this test.
  std::atomic<Engine*> self = nullptr;
  std::atomic<int> ends = 0;
  Engine engine(MakeRunner(Instant()), {}, [&](std::span<TokenEvent> events) {
    WaitFor([&] { return self.load() != nullptr; });
    for (const TokenEvent& event : events) {
      if (event.finish != FinishReason::kLength) continue;
      self.load()->Cancel(event.id);
      (void)self.load()->idle();
      if (++ends < 5) self.load()->Submit(Request(8, 3));
    }
  });
  self = &engine;
  engine.Submit(Request(8, 3));
  WaitFor([&] { return ends == 5 && engine.idle(); });
}

TEST(Engine, TellsThatItsLoadChanged) {
  Answers answers;
  std::atomic<int> changes = 0;
  Engine engine(MakeRunner(Instant()), {}, answers.sink(), [&] { ++changes; });
  const uint64_t before = engine.Load().seq;
  answers.WaitForEnd(engine.Submit(Request(8, 3)).id);
  WaitFor([&] { return changes >= 4; });  // The submit, and three steps.
  EXPECT_GT(engine.Load().seq, before);
}

TEST(Engine, AnIdleEngineTakesNoSteps) {
  Answers answers;
  Engine engine(MakeRunner(Instant()), {}, answers.sink());
  answers.WaitForEnd(engine.Submit(Request(8, 3)).id);
  engine.Cancel(1);
  engine.Cancel(12345);
  answers.WaitForEnd(engine.Submit(Request(8, 3)).id);
  EXPECT_EQ(engine.Load().steps, 6u);
}

TEST(Engine, AStepThatHangsMakesTheEngineFailedInItsLoad) {
  Answers answers;
  Engine engine(MakeRunner(Endless()), {.stall_seconds = 0}, answers.sink());
  EXPECT_EQ(engine.Load().state, NodeState::kReady);
  engine.Submit(Request(10, 10));
  WaitFor([&] { return engine.Load().state == NodeState::kFailed; });
  EXPECT_GT(engine.Load().seconds_in_step, 0);
  EXPECT_EQ(engine.Submit(Request(10, 10)).code, SubmitCode::kFailed);
}

TEST(Engine, AStepThatEndsAfterAllMakesTheEngineReadyAgain) {
  Answers answers;
  auto runner = std::make_unique<SteppedRunner>();
  SteppedRunner& device = *runner;
  Engine engine(std::move(runner), {.stall_seconds = 0}, answers.sink());
  const SequenceId id = engine.Submit(Request(10, 1)).id;
  device.WaitForRun();
  WaitFor([&] { return engine.Load().state == NodeState::kFailed; });
  device.LetItPass();
  EXPECT_EQ(answers.WaitForEnd(id).finish, FinishReason::kLength);
  EXPECT_EQ(engine.Load().state, NodeState::kReady);
  EXPECT_EQ(engine.Submit(Request(10, 1)).code, SubmitCode::kOk);
}

TEST(Engine, CountsWhatItDidAndMeasuresItsSteps) {
  Answers answers;
  Engine engine(MakeRunner(Instant()), {}, answers.sink());
  answers.WaitForEnd(engine.Submit(Request(40, 12)).id);
  const EngineLoad load = engine.Load();
  EXPECT_EQ(load.prompt_tokens, 40u);
  EXPECT_EQ(load.generated_tokens, 12u);
  EXPECT_EQ(load.steps, 12u);
  EXPECT_EQ(load.running, 0);
  EXPECT_GT(load.prefill_tokens_per_s, 0);
  EXPECT_GT(load.step_ms, 0);
  EXPECT_GT(load.ttft_ms_p50, 0);
}

TEST(Engine, ForgetsItsSpeedWhenAskedAndMeasuresAnew) {
  Answers answers;
  Engine engine(MakeRunner(Instant()), {}, answers.sink());
  answers.WaitForEnd(engine.Submit(Request(40, 3)).id);
  WaitFor([&] { return engine.Load().step_ms > 0; });
  engine.ForgetSpeed();
  EXPECT_EQ(engine.Load().step_ms, 0);
  EXPECT_EQ(engine.Load().ttft_ms_p50, 0);
  EXPECT_EQ(engine.Load().prefill_tokens_per_s, 0);
  EXPECT_EQ(engine.Load().steps, 3u);  // What was done was done.
  answers.WaitForEnd(engine.Submit(Request(40, 3)).id);
  EXPECT_GT(engine.Load().step_ms, 0);
  EXPECT_GT(engine.Load().ttft_ms_p50, 0);
}

TEST(Engine, TakesSubmitsAndCancelsFromManyThreads) {
  Answers answers;
  EmulatedOptions small = Instant();
  small.block_count = 40;
  Engine engine(MakeRunner(small), {.queue_max = 4, .max_running = 4}, answers.sink());
  std::vector<std::thread> threads;
  for (int thread = 0; thread < 4; ++thread) {
    threads.emplace_back([&, thread] {
      for (int i = 0; i < 50; ++i) {
        const SubmitResult result = engine.Submit(Request(20 + i, 5 + thread));
        if (result.code == SubmitCode::kQueueFull) continue;
        ASSERT_EQ(result.code, SubmitCode::kOk);
        if (i % 3 == 0) engine.Cancel(result.id);
        (void)engine.Load();
        answers.WaitForEnd(result.id);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  WaitFor([&] { return engine.idle(); });
  EXPECT_EQ(engine.Load().kv_blocks_used, 0);
  EXPECT_EQ(engine.Load().waiting, 0);
}

}  // namespace
}  // namespace penstock::engine
