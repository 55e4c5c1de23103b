// The embedded model against an independent fp32 forward pass (golden.json):
// greedy answers, first-step logits and the likelihood of given answers.
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "backend-engine/load/checkpoint.h"
#include "tests/backend-engine/model/steps.h"

namespace penstock::engine {
namespace {

using Tokens = std::vector<int32_t>;

const std::string kModelDir = PENSTOCK_SOURCE_DIR "/backend-engine/models/lexicon-5m";

const nlohmann::json& Golden() {
  static const nlohmann::json golden =
      nlohmann::json::parse(std::ifstream(kModelDir + "/golden.json"));
  return golden;
}

const Checkpoint& Lexicon() {
  static const std::unique_ptr<Checkpoint> checkpoint = [] {
    auto opened = Checkpoint::Open(kModelDir);
    EXPECT_TRUE(opened.ok()) << opened.status();
    return *std::move(opened);
  }();
  return *checkpoint;
}

struct Setting {
  int ranks;
  bool fp32;
};

class GoldenModel : public ::testing::TestWithParam<Setting> {
 protected:
  // For `sequences` side by side, of 32 blocks each.
  std::unique_ptr<CpuRunner> MakeRunner(int32_t sequences, bool keep_logits) const {
    CpuRunnerOptions options{.ranks = GetParam().ranks, .block_count = sequences * 32,
                             .max_step_tokens = 2048, .max_sequences = sequences,
                             .keep_logits = keep_logits};
    if (GetParam().fp32) options.dtype = DType::kF32;
    std::string error;
    auto runner = CpuRunner::Create(Lexicon().config(), Lexicon().source(), options, error);
    EXPECT_NE(runner, nullptr) << error;
    return runner;
  }
  bool fp32() const { return GetParam().fp32; }
};

TEST_P(GoldenModel, GivesTheGoldenGreedyAnswers) {
  const auto runner = MakeRunner(96, false);
  Steps steps(*runner);
  std::vector<Tokens> prompts;
  for (const auto& answer : Golden().at("answers")) {
    prompts.push_back(answer.at("prompt_ids").get<Tokens>());
  }
  const auto answers = steps.Greedy(prompts, 96, Golden().at("end_of_turn_id").get<int32_t>());
  for (size_t i = 0; i < prompts.size(); ++i) {
    EXPECT_EQ(answers[i], Golden().at("answers")[i].at("answer_ids").get<Tokens>())
        << Golden().at("answers")[i].at("question");
  }
}

double LogSumExp(std::span<const float> logits) {
  const auto count = static_cast<int64_t>(logits.size());
  const float largest = BestKernels().arg_max(logits.data(), count).value;
  return largest + std::log(BestKernels().exp_sum(logits.data(), count, largest, 1.0f, nullptr));
}

TEST_P(GoldenModel, FirstStepLogitsAreCloseToTheGoldenOnes) {
  const auto runner = MakeRunner(1, true);
  Steps steps(*runner);
  const double tolerance = fp32() ? 2e-3 : 0.15;
  for (const auto& answer : Golden().at("answers")) {
    const auto prompt = answer.at("prompt_ids").get<Tokens>();
    steps.Add(0, prompt, 0, true);
    steps.Run();
    const auto logits = runner->kept_logits(static_cast<int32_t>(prompt.size()) - 1);
    const auto& first = answer.at("first_step");
    const double golden_sum = first.at("logsumexp").get<double>();
    const double sum = LogSumExp(logits);
    EXPECT_NEAR(sum, golden_sum, tolerance);
    double divergence = 0;  // Over the golden's most likely tokens.
    for (size_t i = 0; i < first.at("top_ids").size(); ++i) {
      const double golden = first.at("top_logits")[i].get<double>();
      const double ours = logits[first.at("top_ids")[i].get<size_t>()];
      EXPECT_NEAR(ours, golden, tolerance) << answer.at("question");
      const double p = std::exp(golden - golden_sum);
      divergence += p * ((golden - golden_sum) - (ours - sum));
    }
    EXPECT_LT(std::fabs(divergence), 1e-3) << answer.at("question");
  }
}

TEST_P(GoldenModel, GivesOtherAnswersTheGoldenLikelihood) {
  const auto runner = MakeRunner(1, true);
  Steps steps(*runner);
  double sum = 0;
  int64_t count = 0;
  for (const auto& item : Golden().at("teacher_forced_cases")) {
    const auto prompt = item.at("prompt_ids").get<Tokens>();
    const auto answer = item.at("answer_ids").get<Tokens>();
    Tokens all = prompt;
    all.insert(all.end(), answer.begin(), answer.end() - 1);
    steps.Add(0, all, 0, false);
    steps.Run();
    for (size_t i = 0; i < answer.size(); ++i) {
      const auto logits = runner->kept_logits(static_cast<int32_t>(prompt.size() + i) - 1);
      sum += LogSumExp(logits) - logits[static_cast<size_t>(answer[i])];
      ++count;
    }
  }
  const auto& golden = Golden().at("teacher_forced");
  EXPECT_EQ(count, golden.at("tokens").get<int64_t>());
  const double want = golden.at("nll_sum").get<double>();
  EXPECT_NEAR(sum, want, want * (fp32() ? 1e-4 : 1e-2));
  RecordProperty("relative_error", std::to_string(std::fabs(sum / want - 1)));
}

std::string SettingName(const ::testing::TestParamInfo<Setting>& info) {
  return std::to_string(info.param.ranks) + (info.param.fp32 ? "RanksFp32" : "RanksBf16");
}
INSTANTIATE_TEST_SUITE_P(Settings, GoldenModel,
                         ::testing::Values(Setting{1, true}, Setting{2, true}, Setting{4, true},
                                           Setting{1, false}, Setting{2, false},
                                           Setting{4, false}),
                         SettingName);

}  // namespace
}  // namespace penstock::engine
