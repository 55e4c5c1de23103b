#include "backend-engine/exec/step_watch.h"

#include <gtest/gtest.h>

#include <future>

namespace penstock::engine {
namespace {

// What a watch with short seconds says.
struct Said {
  std::promise<std::string> hangs;
  std::promise<void> lasts;
  std::atomic<bool> stuck{false};

  StepWatchOptions Options() {
    return {.step_seconds_max = 3, .end_seconds_max = 3, .second = 0.002,
            .hangs = [this](const std::string& why) { hangs.set_value(why); },
            .must_end = [this](bool leaves) { return leaves || stuck; },
            .lasts = [this] { lasts.set_value(); }};
  }
};

TEST(StepWatch, NamesTheStepThatDoesNotEndOnce) {
  Said said;
  StepWatch watch(said.Options());
  watch.OfStep(40117);
  EXPECT_EQ(said.hangs.get_future().get(), "step 40117 has run for more than 3 s");
  watch.OfStep(40118);  // A second call would end the test: the promise is kept.
  EXPECT_EQ(said.lasts.get_future().wait_for(std::chrono::milliseconds(30)),
            std::future_status::timeout);
}

TEST(StepWatch, TheStartIsWatchedTooAndNothingIsNot) {
  Said said;
  StepWatch watch(said.Options());
  watch.OfStep(1);
  watch.OfNothing();
  auto hangs = said.hangs.get_future();
  EXPECT_EQ(hangs.wait_for(std::chrono::milliseconds(30)), std::future_status::timeout);
  watch.OfStart();
  EXPECT_EQ(hangs.get(), "the ranks' first work together has run for more than 3 s");
}

TEST(StepWatch, WhatDoesNotEndOnceItMustIsToldInPlaceOfTheStep) {
  for (const bool leaves : {true, false}) {
    Said said;
    StepWatch watch(said.Options());
    if (leaves) watch.Leave();
    said.stuck = !leaves;
    watch.OfStep(7);
    said.lasts.get_future().wait();
    EXPECT_EQ(said.hangs.get_future().wait_for(std::chrono::seconds(0)), std::future_status::timeout);
  }
}

}  // namespace
}  // namespace penstock::engine
