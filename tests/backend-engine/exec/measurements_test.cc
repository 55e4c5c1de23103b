#include "backend-engine/exec/measurements.h"

#include <gtest/gtest.h>

#include <vector>

namespace penstock::engine {
namespace {

TEST(Measurements, AreZeroWhileThereIsNothingToGoBy) {
  const Measurements measurements;
  EXPECT_EQ(measurements.step_seconds(), 0);
  EXPECT_EQ(measurements.prefill_tokens_per_second(), 0);
  EXPECT_EQ(measurements.ttft_p50_seconds(), 0);
}

TEST(Measurements, PrefillSpeedCountsOnlyStepsThatPrefilled) {
  Measurements measurements;
  measurements.OnStep(1000, 0.5);
  measurements.OnStep(0, 10);
  measurements.OnStep(500, 0.25);
  EXPECT_DOUBLE_EQ(measurements.prefill_tokens_per_second(), 2000);
}

TEST(Measurements, ForgetOldStepsWithinTheirWindow) {
  Measurements measurements;
  measurements.OnStep(0, 1000);
  for (int i = 0; i < 64; ++i) measurements.OnStep(0, 0.01);
  EXPECT_NEAR(measurements.step_seconds(), 0.01, 1e-9);
}

TEST(Measurements, OneSlowAnswerDoesNotMoveTheMedian) {
  Measurements measurements;
  const std::vector<double> waits = {0.1, 0.2, 0.3, 0.2, 60};
  measurements.OnFirstTokens(waits);
  EXPECT_DOUBLE_EQ(measurements.ttft_p50_seconds(), 0.2);
}

}  // namespace
}  // namespace penstock::engine
