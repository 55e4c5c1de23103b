// The engine over GPU ranks, on the emulated GPU: steps planned and queued ahead,
// whose tokens never come to the host on their way into the next step, give the
// answers of steps that are waited for one by one.
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "backend-engine/exec/engine.h"
#include "backend-engine/exec/gpu_runner.h"
#include "tests/backend-engine/exec/answers.h"
#include "tests/backend-engine/model/random_model.h"

namespace penstock::engine {
namespace {

// Hides that the runner takes steps ahead.
class AloneRunner final : public Runner {
 public:
  explicit AloneRunner(std::unique_ptr<Runner> inner) : inner_(std::move(inner)), info_(inner_->info()) {
    info_.steps_ahead = 0;
  }
  const RunnerInfo& info() const override { return info_; }
  std::string error() const override { return inner_->error(); }
  void Abort() override { inner_->Abort(); }
  RunStatus Run(const StepPlan& plan, StepResult& result) override {
    return inner_->Run(plan, result);
  }

 private:
  const std::unique_ptr<Runner> inner_;
  RunnerInfo info_;
};

std::unique_ptr<Runner> Make(size_t ranks, bool ahead) {
  static const RandomModel model(SmallGpuConfig(), DType::kBf16, 0.15f);
  std::string error;
  std::unique_ptr<Runner> runner = GpuRunner::Create(
      model.config(), model.source(),
      {.gpus = std::vector<int>(ranks, 0), .block_tokens = 8, .block_count = 30,
       .max_step_tokens = 24, .max_sequences = 3}, error);
  EXPECT_NE(runner, nullptr) << error;
  EXPECT_EQ(runner->info().steps_ahead, 1);
  if (ahead) return runner;
  return std::make_unique<AloneRunner>(std::move(runner));
}

GenerateRequest Request(int32_t length, const SamplingParams& sampling, std::vector<int32_t> stops) {
  GenerateRequest request;
  for (int32_t i = 0; i < length; ++i) request.prompt.push_back((5 + i * 7) % 101);
  request.max_tokens = 8;
  request.sampling = sampling;
  request.stop_tokens = std::move(stops);
  return request;
}

std::vector<GenerateRequest> Requests() {
  const SamplingParams greedy{.temperature = 0};
  const SamplingParams drawn{.temperature = 1.2f, .top_p = 0.95f, .repetition_penalty = 1.3f,
                             .presence_penalty = 0.5f, .frequency_penalty = 0.4f, .seed = 99,
                             .logprobs = 2, .logit_bias = {{3, 1.5f}}};
  std::vector<GenerateRequest> requests = {Request(5, greedy, {}), Request(40, greedy, {}),
                                           Request(9, drawn, {})};
  // Half of all tokens end this one: some step of it is computed in vain.
  requests.push_back(Request(7, drawn, {}));
  for (int32_t token = 0; token < 101; token += 2) requests.back().stop_tokens.push_back(token);
  return requests;
}

// One after another: on a GPU, bits may depend on who shares the batch.
std::vector<std::vector<int32_t>> Answer(size_t ranks, bool ahead) {
  Answers answers;
  Engine engine(Make(ranks, ahead), {}, answers.sink());
  std::vector<std::vector<int32_t>> tokens;
  for (GenerateRequest& request : Requests()) {
    const SubmitResult submitted = engine.Submit(std::move(request));
    EXPECT_EQ(submitted.code, SubmitCode::kOk) << submitted.message;
    tokens.push_back(answers.WaitForEnd(submitted.id).tokens);
  }
  return tokens;
}

TEST(EngineOnGpu, StepsQueuedAheadGiveTheAnswersOfStepsThatAreWaitedFor) {
  for (const size_t ranks : {1, 2}) {
    const auto alone = Answer(ranks, false);
    EXPECT_EQ(Answer(ranks, true), alone) << ranks << " ranks";
    EXPECT_EQ(alone[2].size(), 8u);
    EXPECT_LT(alone[3].size(), 8u);
  }
}

TEST(EngineOnGpu, ACrowdWithCancelsEndsAndLeavesNothingInUse) {
  Answers answers;
  Engine engine(Make(2, true), {}, answers.sink());
  std::vector<SequenceId> ids;
  for (int round = 0; round < 2; ++round) {
    for (GenerateRequest& request : Requests()) ids.push_back(engine.Submit(std::move(request)).id);
  }
  answers.WaitForToken(ids[1]);
  engine.Cancel(ids[1]);
  engine.Cancel(ids[5]);
  for (const SequenceId id : ids) {
    const auto answer = answers.WaitForEnd(id);
    EXPECT_NE(answer.finish, FinishReason::kFailed) << answer.error;
  }
  EXPECT_EQ(engine.Load().kv_blocks_used, 0);
}

TEST(GpuRunner, AStepThatAwaitsATokenOfNobodyIsRefused) {
  const auto runner = Make(1, true);
  StepPlan plan;
  plan.number = 1;
  plan.tokens = {0};
  plan.block_table = {0};
  plan.sequences.push_back({.id = 9, .token_count = 1, .block_count = 1, .sample = true,
                            .awaited = 0});
  EXPECT_EQ(runner->Start(plan), RunStatus::kFailed);
  EXPECT_EQ(runner->error(), "step 1, sequence 9: it awaits a token that nobody chooses");
}

}  // namespace
}  // namespace penstock::engine
