// One engine over several processes, on the emulated GPU: its runners stand for
// processes that see nothing of each other but the line and NCCL's twin.
// gpu_processes_test.py has real ones.
#include "backend-engine/exec/gpu_line.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmath>
#include <future>
#include <numeric>
#include <thread>

#include "backend-engine/exec/engine.h"
#include "backend-engine/exec/gpu_runner.h"
#include "backend-engine/kernels/cuda/emulated/recording.h"
#include "tests/backend-engine/exec/answers.h"
#include "tests/backend-engine/model/random_model.h"
#include "tests/backend-engine/model/steps.h"
#include "tests/backend-engine/parallel/free_address.h"

namespace penstock::engine {
namespace {

using Tokens = std::vector<int32_t>;

const RandomModel& Model() {
  static const RandomModel model(SmallGpuConfig(), DType::kBf16, 0.15f);
  return model;
}

GpuRunnerOptions Options(int ranks) {
  GpuRunnerOptions options{.block_count = 60, .max_step_tokens = 64, .max_sequences = 5};
  options.gpus.resize(static_cast<size_t>(ranks));
  std::iota(options.gpus.begin(), options.gpus.end(), 0);
  return options;
}

// There are four GPUs as long as any of these lives; a runner must not outlive its GPU.
class FourGpus {
 public:
  FourGpus() {
    if (living_++ == 0) emulated::SetGpuCount(4);
  }
  ~FourGpus() {
    if (--living_ == 0) emulated::SetGpuCount(1);
  }
  FourGpus(const FourGpus&) = delete;
  FourGpus& operator=(const FourGpus&) = delete;

 private:
  static inline int living_ = 0;
};

// The runners of all processes: process 0's, and those that follow it.
class Processes {
 public:
  Processes(int processes, GpuRunnerOptions options,
            const std::function<void(GpuRunnerOptions&)>& of_the_others = {},
            const RandomModel& their_model = Model(), const RandomModel& model = Model()) {
    options.failed = [this](const std::string& why) { said_ += why; };
    options.meeting = {.size = processes, .address = FreeAddress(), .facts = "random",
                       .timeout_seconds = 100, .silence_seconds = 5};
    errors_.resize(static_cast<size_t>(processes));
    ends_.resize(errors_.size());
    followers_.resize(errors_.size());
    for (int index = 1; index < processes; ++index) {
      GpuRunnerOptions other = options;
      other.meeting->index = index;
      other.failed = {};
      if (of_the_others) of_the_others(other);
      threads_.emplace_back([this, index, other, &their_model] {
        const auto at = static_cast<size_t>(index);
        followers_[at] = GpuRunner::Create(their_model.config(), their_model.source(), other, errors_[at]);
        made_[index].set_value();
        if (followers_[at] != nullptr) ends_[at] = followers_[at]->Follow();
      });
    }
    first_ = GpuRunner::Create(model.config(), model.source(), options, errors_[0]);
    for (int index = 1; index < processes; ++index) made_[index].get_future().wait();
  }
  ~Processes() {
    first_.reset();
    Join();
  }

  GpuRunner& first() { return *first_; }
  std::unique_ptr<GpuRunner> TakeFirst() { return std::move(first_); }
  Runner& follower(size_t index) { return *followers_[index]; }
  bool whole() const { return first_ != nullptr && followers_.back() != nullptr; }
  const std::string& error(size_t index) const { return errors_[index]; }

  void EndFirst() { first_.reset(); }
  const std::string& said() const { return said_; }  // By process 0 as it failed.
  void Join() {
    for (std::thread& thread : threads_) {
      if (thread.joinable()) thread.join();
    }
  }
  const std::string& end(size_t index) const { return ends_[index]; }
  void EndFollower(size_t index) {
    followers_[index]->Abort();
    threads_[index - 1].join();
    followers_[index].reset();
  }

 private:
  const FourGpus gpus_;
  std::unique_ptr<GpuRunner> first_;
  std::vector<std::unique_ptr<GpuRunner>> followers_;
  std::vector<std::string> errors_, ends_;
  std::string said_;
  std::promise<void> made_[4];
  std::vector<std::thread> threads_;
};

Tokens Ids(int32_t count, int32_t first) {
  Tokens ids;
  for (int32_t i = 0; i < count; ++i) ids.push_back((first + i * 7) % 101);
  return ids;
}

std::vector<Tokens> Greedy(Runner& runner) {
  Steps steps(runner, 12);
  return steps.Greedy({Ids(5, 1), Ids(20, 2), Ids(17, 5)}, 9, 40);
}

TEST(GpuLine, ProcessesGiveTheTokensOfOneWithEveryWayOfSumming) {
  const FourGpus gpus;
  std::string error;
  const auto alone = GpuRunner::Create(Model().config(), Model().source(), Options(4), error);
  ASSERT_NE(alone, nullptr) << error;
  const auto want = Greedy(*alone);
  const struct {
    int processes, ranks;
    std::optional<AllReduceWay> sum_by;
    bool graphs;
  } cases[] = {{2, 1, {}, true},
               {2, 2, AllReduceWay::kNccl, true},
               {2, 2, AllReduceWay::kHierarchical, true},
               {2, 2, AllReduceWay::kHierarchical, false},
               {4, 1, {}, true}};
  for (const auto& one : cases) {
    GpuRunnerOptions options = Options(one.ranks);
    options.sum_by = one.sum_by;
    options.graphs = one.graphs;
    Processes group(one.processes, options);
    ASSERT_TRUE(group.whole()) << group.error(0) << "; " << group.error(1);
    EXPECT_EQ(group.first().info().tensor_parallel, one.processes * one.ranks);
    EXPECT_EQ(Greedy(group.first()), want) << one.processes << " times " << one.ranks;
    group.EndFirst();
    group.Join();
    EXPECT_EQ(group.end(1), "process 0 has ended");
  }
}

// Every rank's part of the vocabulary comes to rank 0, whichever process it is of.
TEST(GpuLine, LogitsOfProcessesAreThoseOfOne) {
  GpuRunnerOptions options = Options(2);
  options.keep_logits = true;
  options.max_sequences = 3;
  const auto logits = [](GpuRunner& runner) {
    Steps steps(runner, 12);
    steps.Add(0, Ids(37, 3), 0, true);
    steps.Add(1, Ids(9, 9), 0, false);
    steps.Run();
    std::vector<float> all;
    for (int row = 0; row < 46; ++row) {
      const auto kept = runner.kept_logits(row);
      all.insert(all.end(), kept.begin(), kept.end());
    }
    return all;
  };
  const FourGpus gpus;
  std::string error;
  GpuRunnerOptions alone = Options(4);
  alone.keep_logits = true;
  alone.max_sequences = 3;
  const auto one = GpuRunner::Create(Model().config(), Model().source(), alone, error);
  ASSERT_NE(one, nullptr) << error;
  const auto want = logits(*one);
  Processes group(2, options);
  ASSERT_TRUE(group.whole()) << group.error(0) << "; " << group.error(1);
  const auto got = logits(group.first());
  ASSERT_EQ(got.size(), want.size());
  float scale = 0;
  for (const float logit : want) scale = std::max(scale, std::fabs(logit));
  for (size_t i = 0; i < want.size(); ++i) ASSERT_NEAR(got[i], want[i], 0.03 * scale) << i;
}

// Steps that are queued ahead await tokens which rank 0's GPU chooses. Two-shot rounds as
// NCCL's twin does, so that even drawn tokens are the same.
TEST(GpuLine, StepsQueuedAheadTakeTheirTokensFromAnotherProcess) {
  const auto answer = [](std::unique_ptr<Runner> runner) {
    Answers answers;
    Engine engine(std::move(runner), {}, answers.sink());
    std::vector<Tokens> tokens;
    for (const SamplingParams& sampling :
         {SamplingParams{.temperature = 0},
          SamplingParams{.temperature = 1.2f, .top_p = 0.95f, .repetition_penalty = 1.3f,
                         .frequency_penalty = 0.4f, .seed = 99}}) {
      GenerateRequest request;
      request.prompt = Ids(30, 4);
      request.max_tokens = 8;
      request.sampling = sampling;
      const SubmitResult submitted = engine.Submit(std::move(request));
      EXPECT_EQ(submitted.code, SubmitCode::kOk) << submitted.message;
      tokens.push_back(answers.WaitForEnd(submitted.id).tokens);
    }
    return tokens;
  };
  const FourGpus gpus;
  std::string error;
  GpuRunnerOptions two = Options(2);
  two.sum_by = AllReduceWay::kTwoShot;
  auto alone = GpuRunner::Create(Model().config(), Model().source(), two, error);
  ASSERT_NE(alone, nullptr) << error;
  const auto want = answer(std::move(alone));
  ASSERT_EQ(want[0].size(), 8u);
  Processes group(2, Options(1));
  ASSERT_TRUE(group.whole()) << group.error(0) << "; " << group.error(1);
  // No step makes a call that NCCL has not been connected for: nothing is allocated any more.
  int64_t free = 0, total = 0;
  ASSERT_EQ(cuda::UseGpu(0), cuda::kGpuOk);
  ASSERT_EQ(cuda::MemoryInfo(free, total), cuda::kGpuOk);
  emulated::SetGpuMemory(0, total - free);
  EXPECT_EQ(answer(group.TakeFirst()), want);
  emulated::SetGpuMemory(0, total);
}

TEST(GpuLine, AFailureOfNcclIsToldInItsOwnWords) {
  const FourGpus gpus;
  GpuRunnerOptions options = Options(2);
  options.sum_by = AllReduceWay::kNccl;
  options.graphs = false;
  std::string error;
  const auto runner = GpuRunner::Create(Model().config(), Model().source(), options, error);
  ASSERT_NE(runner, nullptr) << error;
  emulated::RefuseNccl(true);
  EXPECT_EQ(GpuRunner::Create(Model().config(), Model().source(), options, error), nullptr);
  StepPlan plan;
  plan.tokens = {5};
  plan.block_table = {0};
  plan.sequences.push_back({.id = 9, .token_count = 1, .block_count = 1, .sample = true});
  StepResult result;
  EXPECT_EQ(runner->Run(plan, result), RunStatus::kFailed);
  emulated::RefuseNccl(false);
  EXPECT_NE(error.find(": NCCL (emulated): told to refuse"), std::string::npos) << error;
  EXPECT_NE(runner->error().find(": a step: NCCL (emulated): told to refuse"), std::string::npos)
      << runner->error();
}

TEST(GpuLine, TheProcessWithTheLeastRoomSaysHowLargeThePoolIs) {
  Processes group(2, Options(1), [](GpuRunnerOptions& other) { other.block_count = 33; });
  ASSERT_TRUE(group.whole()) << group.error(0) << "; " << group.error(1);
  EXPECT_EQ(group.first().info().block_count, 33);
  EXPECT_EQ(group.follower(1).info().block_count, 33);
  Steps steps(group.first(), 11);
  EXPECT_EQ(steps.Greedy({Ids(5, 1)}, 3, -1).at(0).size(), 3u);
}

// The smaller GPU has less than the model's longest text takes, so that even the positions
// of its own plan are others.
TEST(GpuLine, ProcessesWhoseGpusHaveUnequalRoomAgreeOnTheSmallestPool) {
  ModelConfig config = SmallGpuConfig();
  config.max_positions = 120000;
  const RandomModel model(config, DType::kBf16, 0.15f);
  for (const int small : {0, 1}) {
    emulated::SetGpuMemory(small, int64_t{100} << 20);
    GpuRunnerOptions options = Options(1);
    options.block_count = 0;
    const auto second_gpu = [](GpuRunnerOptions& other) { other.gpus = {1}; };
    Processes group(2, options, second_gpu, model, model);
    emulated::SetGpuMemory(int64_t{8} << 30);
    ASSERT_TRUE(group.whole()) << group.error(0) << "; " << group.error(1);
    const int32_t blocks = group.first().info().block_count;
    EXPECT_LT(blocks * 16, config.max_positions);
    EXPECT_GT(blocks, 100);
    EXPECT_EQ(group.follower(1).info().block_count, blocks);
    Steps steps(group.first(), blocks);
    EXPECT_EQ(steps.Greedy({Ids(5, 1)}, 3, -1).at(0).size(), 3u);
  }
}

TEST(GpuLine, ProcessesThatAreNotAlikeAreToldWhichNumberDiffers) {
  Processes group(2, Options(1), [](GpuRunnerOptions& other) { other.max_step_tokens = 65; });
  EXPECT_FALSE(group.whole());
  EXPECT_NE(group.error(0).find("step tokens 65"), std::string::npos) << group.error(0);
  EXPECT_NE(group.error(0).find("process 0 'random, tensor parallel 2"), std::string::npos);
  EXPECT_EQ(group.error(1), group.error(0));
}

// A step's plan says positions, which a process with a shorter table would refuse only then.
TEST(GpuLine, ProcessesWithOtherLongestContextsDoNotMeet) {
  Processes group(2, Options(1), [](GpuRunnerOptions& other) { other.max_length = 24; });
  EXPECT_FALSE(group.whole());
  EXPECT_NE(group.error(0).find("positions 24,"), std::string::npos) << group.error(0);
  EXPECT_EQ(group.error(1), group.error(0));
}

TEST(GpuLine, AProcessThatCannotStartTellsTheOthersWhy) {
  RandomModel cut(SmallGpuConfig(), DType::kBf16, 0.15f);
  cut.Remove("model.layers.1.mlp.down_proj.weight");
  Processes group(2, Options(1), {}, cut);
  EXPECT_FALSE(group.whole());
  EXPECT_EQ(group.error(0).find("process 1 has failed: tensor model.layers.1.mlp.down_proj.weight"), 0u)
      << group.error(0);
  EXPECT_EQ(group.error(1).find("tensor model.layers.1.mlp.down_proj.weight is missing"), 0u)
      << group.error(1);
}

TEST(GpuLine, RanksOfProcessesNeedAGpuEach) {
  GpuRunnerOptions options = Options(1);
  options.gpus = {0, 0};
  options.meeting = {.size = 2, .address = FreeAddress()};
  std::string error;
  EXPECT_EQ(GpuRunner::Create(Model().config(), Model().source(), options, error), nullptr);
  EXPECT_NE(error.find("each rank needs a GPU of its own"), std::string::npos) << error;
}

// No step is under way: nobody but the line could notice.
TEST(GpuLine, AnIdleEngineFailsWhenAProcessEnds) {
  Processes group(2, Options(1));
  ASSERT_TRUE(group.whole()) << group.error(0) << "; " << group.error(1);
  Answers answers;
  std::promise<void> failed;
  std::atomic<bool> told{false};
  std::atomic<Engine*> engine{nullptr};
  Engine made(group.TakeFirst(), {}, answers.sink(), [&] {
    Engine* const running = engine.load();
    if (running != nullptr && running->Load().state == NodeState::kFailed && !told.exchange(true)) {
      failed.set_value();
    }
  });
  engine = &made;
  EXPECT_EQ(made.Load().state, NodeState::kReady);
  group.EndFollower(1);
  failed.get_future().wait();
  GenerateRequest request;
  request.prompt = {1, 2};
  const SubmitResult refused = made.Submit(std::move(request));
  EXPECT_EQ(refused.code, SubmitCode::kFailed);
  EXPECT_EQ(refused.message, "process 1 has ended");
  EXPECT_EQ(group.said(), "process 1 has ended");
}

// What hangs there is the end of the graphs, for which NCCL's own end waits.
TEST(GpuLine, GpusThatDoNotLetGoAreLostAndNobodyWaitsForThem) {
  const FourGpus gpus;
  GpuRunnerOptions options = Options(2);
  options.sum_by = AllReduceWay::kNccl;
  options.end_seconds_max = 1;
  std::string error, why;
  options.lost = [&](const std::string& reason) {
    why = reason;
    emulated::HoldGraphs(false);
  };
  auto runner = GpuRunner::Create(Model().config(), Model().source(), options, error);
  ASSERT_NE(runner, nullptr) << error;
  emulated::HoldGraphs(true);
  runner->Abort();  // Returns.
  EXPECT_EQ(runner->Start(StepPlan()), RunStatus::kFailed);
  runner.reset();
  EXPECT_EQ(why, "the GPUs do not end what they run within 1 s of an abort: the step was aborted");
}

TEST(GpuLine, WhoFollowsComputesNothingOfItsOwn) {
  Processes group(2, Options(1));
  ASSERT_TRUE(group.whole()) << group.error(0) << "; " << group.error(1);
  StepPlan plan;
  StepResult result;
  EXPECT_EQ(group.follower(1).Run(plan, result), RunStatus::kFailed);
  std::string error;
  const auto alone = CpuRunner::Create(Model().config(), Model().source(), {.block_count = 4}, error);
  ASSERT_NE(alone, nullptr) << error;
  EXPECT_EQ(alone->Follow(), "this runner follows nobody");
}

}  // namespace
}  // namespace penstock::engine
