#include "backend-engine/model/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <memory>
#include <utility>

#include "backend-engine/model/philox.h"

namespace penstock::engine {
namespace {

using Tokens = std::vector<int32_t>;

SampledToken Sample(const std::vector<float>& logits, const SamplingParams& params,
                    const Tokens& history = {}, int64_t prompt_length = 0) {
  Sampler sampler(static_cast<int64_t>(logits.size()), BestKernels());
  SampledToken out;
  sampler.Sample(logits.data(), params, history, prompt_length, out);
  return out;
}

// How often each token is drawn over positions 0, 1, 2, ...
std::map<int32_t, double> Shares(const std::vector<float>& logits, const SamplingParams& params,
                                 int draws = 20000) {
  Sampler sampler(static_cast<int64_t>(logits.size()), BestKernels());
  std::map<int32_t, double> shares;
  Tokens history;
  SampledToken out;
  for (int i = 0; i < draws; ++i) {
    sampler.Sample(logits.data(), params, history, 0, out);
    shares[out.token] += 1.0 / draws;
    history.push_back(0);
  }
  return shares;
}

const std::vector<float> kLogits = {1.0f, 3.0f, 2.0f, -1.0f, 0.0f};

double Probability(size_t token, double temperature = 1.0) {
  double sum = 0;
  for (const float logit : kLogits) sum += std::exp(logit / temperature);
  return std::exp(kLogits[token] / temperature) / sum;
}

TEST(Philox, GivesThePublishedNumbers) {
  // Known answers of the Random123 distribution, philox4x32-10.
  EXPECT_EQ(Philox({0, 0, 0, 0}, 0),
            (std::array<uint32_t, 4>{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(Philox({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, ~uint64_t{0}),
            (std::array<uint32_t, 4>{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(Philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, 0x299f31d0a4093822),
            (std::array<uint32_t, 4>{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Sampler, TemperatureZeroTakesTheMostLikelyAndTheFirstOfEquals) {
  EXPECT_EQ(Sample(kLogits, {.temperature = 0}).token, 1);
  EXPECT_EQ(Sample({2, 5, 5, 1}, {.temperature = 0}).token, 1);
}

std::shared_ptr<const std::vector<uint32_t>> Allowed(std::vector<uint32_t> words) {
  return std::make_shared<const std::vector<uint32_t>>(std::move(words));
}

TEST(Sampler, AMaskLeavesTheAllowedTokensInTheirProportion) {
  SamplingParams params{.temperature = 0, .logprobs = 1, .allowed = Allowed({0b11101})};
  const SampledToken best = Sample(kLogits, params);
  EXPECT_EQ(best.token, 2);          // The most likely one, 1, is not allowed.
  EXPECT_EQ(best.top[0].token, 1);   // Probabilities stay the model's own.
  params = {.temperature = 1.0f, .allowed = Allowed({0b00101})};
  const auto shares = Shares(kLogits, params);
  EXPECT_EQ(shares.size(), 2u);
  EXPECT_NEAR(shares.at(0), Probability(0) / (Probability(0) + Probability(2)), 0.02);
  params.top_k = 1;
  EXPECT_EQ(Sample(kLogits, params).token, 2);
  params = {.temperature = 2.0f, .top_p = 0.99f, .logit_bias = {{1, 50.0f}},
            .allowed = Allowed({0b10000})};
  EXPECT_EQ(Sample(kLogits, params).token, 4);
}

TEST(Sampler, AMaskThatAllowsNothingMakesTheSequenceFail) {
  EXPECT_TRUE(Sample(kLogits, {.temperature = 0, .allowed = Allowed({0})}).invalid);
  EXPECT_TRUE(Sample(kLogits, {.temperature = 0, .allowed = Allowed({0})}).forbidden);
  EXPECT_FALSE(Sample({0, NAN}, {.temperature = 0, .allowed = Allowed({3})}).forbidden);
  EXPECT_TRUE(Sample(kLogits, {.temperature = 1, .allowed = Allowed({})}).invalid);
  EXPECT_TRUE(Sample(kLogits, {.temperature = 1, .allowed = Allowed({1u << 5})}).invalid);
  // Beyond its words nothing is allowed.
  std::vector<float> logits(40, 0.0f);
  logits[35] = 9.0f;
  EXPECT_LT(Sample(logits, {.temperature = 0, .allowed = Allowed({~0u})}).token, 32);
}

TEST(Sampler, DrawsFollowTheSoftmax) {
  for (const double temperature : {0.5, 1.0, 2.0}) {
    const auto shares = Shares(kLogits, {.temperature = static_cast<float>(temperature)});
    for (size_t token = 0; token < kLogits.size(); ++token) {
      const auto found = shares.find(static_cast<int32_t>(token));
      const double share = found == shares.end() ? 0.0 : found->second;
      // Four standard deviations.
      const double p = Probability(token, temperature);
      EXPECT_NEAR(share, p, 4 * std::sqrt(p * (1 - p) / 20000) + 1e-9) << token;
    }
  }
}

TEST(Sampler, ADrawDependsOnSeedAndPositionAlone) {
  const SamplingParams params{.temperature = 5.0f, .seed = 42};
  Sampler sampler(5, BestKernels());
  SampledToken first;
  SampledToken again;
  int differing = 0;
  for (size_t position = 0; position < 50; ++position) {
    // The same position of the answer behind prompts of different lengths.
    const Tokens history(position + 3);
    const Tokens longer(position + 9);
    sampler.Sample(kLogits.data(), params, history, 3, first);
    sampler.Sample(kLogits.data(), params, longer, 9, again);
    EXPECT_EQ(first.token, again.token);
    SamplingParams other = params;
    other.seed = 43;
    sampler.Sample(kLogits.data(), other, history, 3, again);
    differing += first.token != again.token ? 1 : 0;
  }
  EXPECT_GT(differing, 10);
}

TEST(Sampler, TopKKeepsTheKMostLikelyInTheirProportion) {
  const auto shares = Shares(kLogits, {.temperature = 1, .top_k = 2});
  ASSERT_EQ(shares.size(), 2u);
  EXPECT_NEAR(shares.at(1), Probability(1) / (Probability(1) + Probability(2)), 0.02);
  EXPECT_EQ(Shares(kLogits, {.temperature = 9, .top_k = 1}, 100).size(), 1u);
  EXPECT_EQ(Shares(kLogits, {.temperature = 9, .top_k = 99}, 5000).size(), 5u);
}

TEST(Sampler, TopPKeepsTheFewestThatReachIt) {
  // 0.66, 0.24, 0.09, ... : 0.6 needs one, 0.7 two, 0.95 three.
  EXPECT_EQ(Shares(kLogits, {.temperature = 1, .top_p = 0.6f}, 2000).size(), 1u);
  const auto two = Shares(kLogits, {.temperature = 1, .top_p = 0.7f});
  ASSERT_EQ(two.size(), 2u);
  EXPECT_NEAR(two.at(1), Probability(1) / (Probability(1) + Probability(2)), 0.02);
  EXPECT_EQ(Shares(kLogits, {.temperature = 1, .top_p = 0.95f}, 5000).size(), 3u);
  EXPECT_EQ(Shares(kLogits, {.temperature = 1, .top_p = 1e-9f}, 100).size(), 1u);
}

TEST(Sampler, TopPOverAWideVocabularyKeepsExactlyTheNucleus) {
  std::vector<float> logits(1000);
  for (size_t i = 0; i < logits.size(); ++i) {
    logits[i] = -0.05f * static_cast<float>((i * 2654435761u) % 1000);
  }
  double sum = 0;
  std::vector<double> sorted;
  for (const float logit : logits) {
    sorted.push_back(std::exp(static_cast<double>(logit)));
    sum += sorted.back();
  }
  std::sort(sorted.rbegin(), sorted.rend());
  size_t nucleus = 0;
  for (double kept = 0; kept < 0.5 * sum;) kept += sorted[nucleus++];
  const auto shares = Shares(logits, {.temperature = 1, .top_p = 0.5f}, 2000);
  EXPECT_LE(shares.size(), nucleus + 1);
  EXPECT_GE(shares.size(), nucleus - 1);
  for (const auto& [token, share] : shares) {
    EXPECT_GE(std::exp(logits[static_cast<size_t>(token)]), 0.999 * sorted[nucleus]);
  }
}

TEST(Sampler, MinPKeepsWhatIsLikelyBesideTheMostLikely) {
  // Relative to token 1: token 2 is e^-1 = 0.37, token 0 is 0.135.
  EXPECT_EQ(Shares(kLogits, {.temperature = 1, .min_p = 0.5f}, 1000).size(), 1u);
  EXPECT_EQ(Shares(kLogits, {.temperature = 1, .min_p = 0.3f}, 2000).size(), 2u);
  EXPECT_EQ(Shares(kLogits, {.temperature = 1, .min_p = 0.1f}, 5000).size(), 3u);
}

TEST(Sampler, RepetitionPenaltyShrinksWhatCameBeforeWhereverItCame) {
  SamplingParams params{.temperature = 0, .repetition_penalty = 2.0f};
  EXPECT_EQ(Sample(kLogits, params, {1}, 1).token, 2);     // 3 / 2 < 2
  EXPECT_EQ(Sample(kLogits, params, {1}, 0).token, 2);
  EXPECT_EQ(Sample(kLogits, params, {1, 1, 1}, 2).token, 2);  // Once, however often it came.
  EXPECT_EQ(Sample(kLogits, params, {1, 2}, 1).token, 1);  // 1.5 against 1 and 1
  // A negative logit is made more negative.
  EXPECT_EQ(Sample({-1.0f, -1.5f}, params, {0}, 1).token, 1);
}

TEST(Sampler, PresencePenaltyIsPaidOnceAndOnlyForTheAnswer) {
  SamplingParams params{.temperature = 0, .presence_penalty = 1.5f};
  EXPECT_EQ(Sample(kLogits, params, {1, 1}, 2).token, 1);
  EXPECT_EQ(Sample(kLogits, params, {1, 1}, 1).token, 2);
  params.presence_penalty = 0.9f;
  EXPECT_EQ(Sample(kLogits, params, {1, 1, 1, 1}, 0).token, 1);
}

TEST(Sampler, FrequencyPenaltyIsPaidForEveryTime) {
  const SamplingParams params{.temperature = 0, .frequency_penalty = 0.4f};
  EXPECT_EQ(Sample(kLogits, params, {1, 1}, 0).token, 1);
  EXPECT_EQ(Sample(kLogits, params, {1, 1, 1}, 0).token, 2);
  EXPECT_EQ(Sample(kLogits, params, {1, 1, 1}, 1).token, 1);
}

TEST(Sampler, PenaltiesLeaveNoTraceForTheNextSequence) {
  Sampler sampler(5, BestKernels());
  SampledToken out;
  const SamplingParams params{.temperature = 0, .presence_penalty = 1.5f};
  const Tokens history = {1, 2, 1};
  for (int i = 0; i < 3; ++i) {
    sampler.Sample(kLogits.data(), params, history, 0, out);
    EXPECT_EQ(out.token, 1);  // 1.5, 0.5 against 1: still the most likely.
    sampler.Sample(kLogits.data(), params, Tokens{2}, 0, out);
    EXPECT_EQ(out.token, 1);
  }
}

TEST(Sampler, LogitBiasForcesAndForbids) {
  SamplingParams params{.temperature = 0, .logit_bias = {{3, 100.0f}}};
  EXPECT_EQ(Sample(kLogits, params).token, 3);
  params.logit_bias = {{1, -100.0f}, {99, 5.0f}, {-1, 5.0f}};  // Unknown tokens are ignored.
  EXPECT_EQ(Sample(kLogits, params).token, 2);
  params.temperature = 1;
  EXPECT_EQ(Shares(kLogits, params, 2000).count(1), 0u);
}

TEST(Sampler, LogprobsAreOfTheModelsOwnDistribution) {
  // Bias and temperature change the choice, not what is reported.
  const SamplingParams params{.temperature = 0, .logprobs = 3, .logit_bias = {{4, 50.0f}}};
  const SampledToken out = Sample(kLogits, params);
  EXPECT_EQ(out.token, 4);
  EXPECT_NEAR(out.logprob, std::log(Probability(4)), 1e-5);
  ASSERT_EQ(out.top.size(), 3u);
  const int32_t order[] = {1, 2, 0};
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(out.top[i].token, order[i]);
    EXPECT_NEAR(out.top[i].logprob, std::log(Probability(static_cast<size_t>(order[i]))), 1e-5);
  }
}

TEST(Sampler, NoLogprobsUnlessAskedAndNoMoreThanThereAre) {
  EXPECT_TRUE(Sample(kLogits, {.temperature = 0}).top.empty());
  EXPECT_TRUE(Sample(kLogits, {.temperature = 0, .logprobs = 0}).top.empty());
  EXPECT_LT(Sample(kLogits, {.temperature = 0, .logprobs = 0}).logprob, 0.0f);
  EXPECT_EQ(Sample(kLogits, {.temperature = 0, .logprobs = 20}).top.size(), 5u);
}

TEST(Sampler, ANumberThatIsNotFiniteMakesTheTokenInvalid) {
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(),
                          std::numeric_limits<float>::infinity(),
                          -std::numeric_limits<float>::infinity()}) {
    std::vector<float> logits = kLogits;
    logits[3] = bad;
    for (const float temperature : {0.0f, 1.0f}) {
      const SampledToken out = Sample(logits, {.temperature = temperature, .logprobs = 2});
      EXPECT_TRUE(out.invalid);
      EXPECT_EQ(out.token, -1);
      EXPECT_TRUE(out.top.empty());
    }
  }
}

TEST(Sampler, AVerySmallTemperatureIsTheMostLikelyToken) {
  const auto shares = Shares(kLogits, {.temperature = 1e-30f, .top_p = 0.9f}, 100);
  ASSERT_EQ(shares.size(), 1u);
  EXPECT_EQ(shares.begin()->first, 1);
}

}  // namespace
}  // namespace penstock::engine
