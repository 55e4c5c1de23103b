// What every Runner with real arithmetic must do, whatever it runs on: its own
// test calls these with a way to make one.
#pragma once

#include <gtest/gtest.h>
#include <pthread.h>

#include <functional>
#include <memory>
#include <string>

#include "backend-engine/exec/runner.h"
#include "tests/backend-engine/model/random_model.h"
#include "tests/backend-engine/model/steps.h"

namespace penstock::engine {

// A runner of `ranks` ranks with `blocks` blocks for at least 8 sequences.
using MakeRunner =
    std::function<std::unique_ptr<Runner>(const RandomModel& model, int ranks, int32_t blocks)>;

inline StepPlan OneTokenPlan(int32_t block = 0) {
  StepPlan plan;
  plan.number = 1;
  plan.tokens = {5};
  plan.block_table = {block};
  plan.sequences.push_back({.id = 9, .token_count = 1, .block_count = 1, .sample = true});
  return plan;
}

// While it lives the system gives no new thread: their stacks are as large as all memory.
class NoThreads {
 public:
  NoThreads() {
    EXPECT_EQ(pthread_getattr_default_np(&before_), 0);
    pthread_attr_t huge;
    EXPECT_EQ(pthread_attr_init(&huge), 0);
    EXPECT_EQ(pthread_attr_setstacksize(&huge, size_t{1} << 47), 0);
    EXPECT_EQ(pthread_setattr_default_np(&huge), 0);
    pthread_attr_destroy(&huge);
  }
  ~NoThreads() {
    EXPECT_EQ(pthread_setattr_default_np(&before_), 0);
    pthread_attr_destroy(&before_);
  }
  NoThreads(const NoThreads&) = delete;
  NoThreads& operator=(const NoThreads&) = delete;

 private:
  pthread_attr_t before_;
};

inline void ExpectRanksWithoutThreadsAreAMessage(
    const std::function<std::string()>& create_error_of_two_ranks) {
  const NoThreads none;
  EXPECT_EQ(create_error_of_two_ranks().find("the 2 ranks could not be started: "), 0u);
}

inline void ExpectLogitsThatAreNotFiniteSpoilTheirOwnSequence(ModelConfig config,
                                                              const MakeRunner& make) {
  config.tied_embeddings = false;
  RandomModel model(config);
  model.Poison("model.embed_tokens.weight", static_cast<size_t>(50 * config.hidden_size + 3));
  for (const int ranks : {1, 2}) {
    const auto runner = make(model, ranks, 64);
    Steps steps(*runner, 8);
    steps.Add(0, {1, 2}, 0, true);
    steps.Add(1, {1, 50, 2}, 0, true);
    steps.Add(2, {1, 2}, 0, true);
    const StepResult& result = steps.Run();
    EXPECT_FALSE(result.sampled[0].invalid);
    EXPECT_TRUE(result.sampled[1].invalid);
    EXPECT_FALSE(result.sampled[2].invalid);
    EXPECT_EQ(result.sampled[0].token, result.sampled[2].token);
  }
}

inline void ExpectAPlanOutOfBoundsFails(const ModelConfig& config, const MakeRunner& make) {
  const auto runner = make(RandomModel(config), 2, 4);
  StepResult result;
  EXPECT_EQ(runner->Run(OneTokenPlan(4), result), RunStatus::kFailed);
  EXPECT_EQ(runner->error(), "step 1, sequence 9: a block is 4, limit 3");
}

inline void ExpectAbortFailsTheNextRun(const ModelConfig& config, const MakeRunner& make) {
  for (const int ranks : {1, 2}) {
    const auto runner = make(RandomModel(config), ranks, 8);
    StepResult result;
    ASSERT_EQ(runner->Run(OneTokenPlan(), result), RunStatus::kOk);
    runner->Abort();
    runner->Abort();
    EXPECT_EQ(runner->Run(OneTokenPlan(), result), RunStatus::kFailed);
    EXPECT_EQ(runner->error(), "the step was aborted");
  }
}

}  // namespace penstock::engine
