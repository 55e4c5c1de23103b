// A device that takes a step while the one before is under way, on top of any
// Runner: Start() computes at once, as the device would in the end, and Finish()
// tells it late. Awaited tokens come from its own last results, and nobody looks
// at a plan after Start().
#pragma once

#include <gtest/gtest.h>

#include <deque>
#include <memory>
#include <utility>
#include <vector>

#include "backend-engine/exec/runner.h"

namespace penstock::engine {

class LateRunner final : public Runner {
 public:
  explicit LateRunner(std::unique_ptr<Runner> inner) : inner_(std::move(inner)), info_(inner_->info()) {
    info_.steps_ahead = 1;
  }

  const RunnerInfo& info() const override { return info_; }
  std::string error() const override { return inner_->error(); }
  void Abort() override { inner_->Abort(); }
  RunStatus Run(const StepPlan&, StepResult&) override {
    ADD_FAILURE() << "Run() of a runner that takes steps ahead";
    return RunStatus::kFailed;
  }

  RunStatus Start(const StepPlan& plan) override {
    EXPECT_LT(late_.size(), 2u);
    StepPlan known = plan;
    std::vector<std::vector<int32_t>> histories;
    histories.reserve(known.sequences.size());
    for (StepSequence& sequence : known.sequences) {
      auto& history = histories.emplace_back(sequence.history.begin(), sequence.history.end());
      if (const int32_t sample = std::exchange(sequence.awaited, -1); sample >= 0) {
        EXPECT_EQ(late_.size(), 1u) << "nothing is under way that could be awaited";
        const SampledToken& chosen = last_.sampled.at(static_cast<size_t>(sample));
        EXPECT_EQ(chosen.id, sequence.id);
        history.push_back(std::max(chosen.token, 0));
        known.tokens[static_cast<size_t>(sequence.first_token)] = history.back();
        ++awaited_;
      }
      sequence.history = history;
    }
    last_ = {};
    const RunStatus status = inner_->Run(known, last_);
    late_.push_back(last_);
    return status;
  }

  RunStatus Finish(StepResult& result) override {
    result = late_.front();
    late_.pop_front();
    return RunStatus::kOk;
  }

  int awaited() const { return awaited_; }  // Tokens taken from the step before.

 private:
  const std::unique_ptr<Runner> inner_;
  RunnerInfo info_;
  StepResult last_;
  std::deque<StepResult> late_;
  int awaited_ = 0;
};

}  // namespace penstock::engine
