// What clients of an engine hear, for tests to wait for.
#pragma once

#include <gtest/gtest.h>

#include <condition_variable>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "backend-engine/exec/engine.h"

namespace penstock::engine {

// Collects what the sink hears; every wait ends when the answer is there.
class Answers {
 public:
  Engine::Sink sink() {
    return [this](std::span<TokenEvent> events) {
      const std::lock_guard lock(mutex_);
      for (TokenEvent& event : events) {
        Answer& answer = answers_[event.id];
        EXPECT_EQ(answer.finish, FinishReason::kNone) << "sequence " << event.id << " ended twice";
        if (event.token >= 0) answer.tokens.push_back(event.token);
        answer.finish = event.finish;
        answer.error = event.error;
      }
      changed_.notify_all();
    };
  }

  struct Answer {
    std::vector<int32_t> tokens;
    FinishReason finish = FinishReason::kNone;
    std::string error;
  };

  Answer WaitForEnd(SequenceId id) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return answers_[id].finish != FinishReason::kNone; });
    return answers_[id];
  }

  void WaitForToken(SequenceId id) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return !answers_[id].tokens.empty(); });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<SequenceId, Answer> answers_;
};

}  // namespace penstock::engine
