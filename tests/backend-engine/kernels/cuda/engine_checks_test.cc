// The part of tests/gpu/check that runs the whole engine, on the emulated GPU: its
// own reading of the embedded model, too, must work before somebody has a GPU.
#include "tests/gpu/engine_checks.h"

#include <gtest/gtest.h>

namespace penstock::engine {
namespace {

TEST(EngineChecks, FindNothingWrongWithTheEmbeddedModel) {
  const PlainModel model(PENSTOCK_SOURCE_DIR "/backend-engine/models/lexicon-5m");
  const auto results = CheckEngine(model, {.answers = 2, .tokens = 3, .likelihoods = 0});
  EXPECT_EQ(results.size(), 4u);
  for (const CheckResult& result : results) {
    EXPECT_TRUE(result.passed()) << result.op << ", " << result.shape;
  }
}

TEST(EngineChecks, NoNumberIsNotAPassedCheck) {
  EXPECT_FALSE((CheckResult{.error = std::numeric_limits<double>::quiet_NaN()}).passed());
  EXPECT_FALSE((CheckResult{.error = 0.1, .allowed = 0.05}).passed());
}

}  // namespace
}  // namespace penstock::engine
