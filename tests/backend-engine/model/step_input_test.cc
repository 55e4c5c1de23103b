#include "backend-engine/model/step_input.h"

#include <gtest/gtest.h>

namespace penstock::engine {
namespace {

constexpr StepLimits kLimits{.tokens = 8, .sequences = 2, .block_tokens = 4, .block_count = 10,
                             .vocab = 50, .positions = 12};

// Three tokens onto two cached ones, and a single one onto none.
StepPlan Plan() {
  StepPlan plan;
  plan.number = 7;
  plan.tokens = {1, 2, 3, 49};
  plan.block_table = {9, 4, 0};
  plan.sequences.push_back({.id = 1, .first_token = 0, .token_count = 3, .start = 2,
                            .first_block = 0, .block_count = 2});
  plan.sequences.push_back({.id = 2, .first_token = 3, .token_count = 1, .start = 0,
                            .first_block = 2, .block_count = 1, .sample = true});
  return plan;
}

TEST(StepInput, GivesEveryTokenItsPositionAndItsPlaceInTheCache) {
  StepInput input;
  std::string error;
  ASSERT_TRUE(FillStepInput(Plan(), kLimits, false, input, error)) << error;
  EXPECT_EQ(input.positions, (std::vector<int32_t>{2, 3, 4, 0}));
  EXPECT_EQ(input.slots, (std::vector<int64_t>{9 * 4 + 2, 9 * 4 + 3, 4 * 4, 0}));
  EXPECT_EQ(input.logit_rows, (std::vector<int32_t>{3}));
  ASSERT_EQ(input.sequences.size(), 2u);
  EXPECT_EQ(input.sequences[1].blocks[0], 0);
}

TEST(StepInput, AllLogitsAreWantedWhereAsked) {
  StepInput input;
  std::string error;
  ASSERT_TRUE(FillStepInput(Plan(), kLimits, true, input, error)) << error;
  EXPECT_EQ(input.logit_rows, (std::vector<int32_t>{0, 1, 2, 3}));
}

TEST(StepInput, RefusesEveryNumberThatIsOutOfBounds) {
  StepInput input;
  const auto refuses = [&input](void (*spoil)(StepPlan&), const std::string& says) {
    StepPlan plan = Plan();
    spoil(plan);
    std::string error;
    EXPECT_FALSE(FillStepInput(plan, kLimits, false, input, error)) << says;
    EXPECT_NE(error.find(says), std::string::npos) << error;
    EXPECT_NE(error.find("step 7"), std::string::npos) << error;
  };
  refuses([](StepPlan& p) { p.tokens[1] = 50; }, "a token is 50, limit 49");
  refuses([](StepPlan& p) { p.tokens[1] = -1; }, "a token is -1");
  refuses([](StepPlan& p) { p.block_table[1] = 10; }, "a block is 10, limit 9");
  refuses([](StepPlan& p) { p.sequences[0].start = 10; }, "length is 13, limit 12");
  refuses([](StepPlan& p) { p.sequences[0].block_count = 1; }, "blocks needed is 2, limit 1");
  refuses([](StepPlan& p) { p.sequences[1].first_token = 4; }, "end of its tokens is 5, limit 4");
  refuses([](StepPlan& p) { p.sequences[1].first_block = 3; }, "blocks");
  refuses([](StepPlan& p) { p.sequences[1].token_count = 0; }, "end of its tokens");
  refuses([](StepPlan& p) { p.tokens.resize(9); }, "9 tokens");
  refuses([](StepPlan& p) { p.sequences.resize(3); }, "3 sequences");
}

}  // namespace
}  // namespace penstock::engine
