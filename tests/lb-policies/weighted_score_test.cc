#include <cmath>
#include <limits>

#include "tests/lb-policies/policy_testing.h"

namespace penstock::lb {
namespace {

// A backend that reports: 10 of at most 32 requests.
Candidate Reporting(BackendId id, float total = 10, float ttft_s = 0.1f) {
  return {
      .id = id, .ttft_s = ttft_s, .rung = Rung::kPush, .reported_total = total, .max_running = 32};
}

std::vector<Terms> TermsOf(const std::vector<Candidate>& candidates, const Params& params = {},
                           const RequestInfo& request = {}) {
  std::vector<Terms> terms(candidates.size());
  Make("weighted_score", params)->Pick(request, candidates, terms);
  return terms;
}

TEST(WeightedScore, TakesTheLowestOfAlphaLatencyPlusBetaQueue) {
  const auto terms =
      TermsOf({Reporting(0, 9, 0.1f), Reporting(1, 19, 0.1f), Reporting(2, 29, 0.4f)});
  EXPECT_FLOAT_EQ(terms[0].latency, 1);
  EXPECT_FLOAT_EQ(terms[2].latency, 4) << "0.4 over the median 0.1";
  EXPECT_FLOAT_EQ(terms[0].u, 10.f / 32);
  EXPECT_FLOAT_EQ(terms[0].queue, 0.5f) << "10 over the mean 20";
  EXPECT_FLOAT_EQ(terms[1].queue, 1);
  EXPECT_FLOAT_EQ(terms[0].score, 0.6f * 1 + 0.4f * 0.5f);
  EXPECT_FLOAT_EQ(terms[2].score, 0.6f * 4 + 0.4f * 1.5f);
  auto policy = Make("weighted_score");
  EXPECT_EQ(Favourite(*policy, {Reporting(0, 9), Reporting(1, 19), Reporting(2, 29)}), 0u);
}

TEST(WeightedScore, TakesItsWeightsFromTheParameters) {
  const std::vector<Candidate> candidates = {Reporting(0, 20, 0.1f), Reporting(1, 2, 0.2f)};
  EXPECT_EQ(Favourite(*Make("weighted_score", {{"alpha", "1"}, {"beta", "0"}}), candidates), 0u);
  EXPECT_EQ(Favourite(*Make("weighted_score", {{"alpha", "0"}, {"beta", "1"}}), candidates), 1u);
}

TEST(WeightedScore, ClampsLatencyFromHalfToFour) {
  const auto terms = TermsOf({Reporting(0, 1, 0.001f), Reporting(1, 1, 1), Reporting(2, 1, 900)});
  EXPECT_FLOAT_EQ(terms[0].latency, 0.5f);
  EXPECT_FLOAT_EQ(terms[1].latency, 1);
  EXPECT_FLOAT_EQ(terms[2].latency, 4);
}

TEST(WeightedScore, TheMedianOfAnEvenNumberIsTheMeanOfTheMiddleTwo) {
  const auto terms = TermsOf(
      {Reporting(0, 1, 0.1f), Reporting(1, 1, 0.2f), Reporting(2, 1, 0.4f), Reporting(3, 1, 0.5f)});
  EXPECT_FLOAT_EQ(terms[1].latency, 0.2f / 0.3f);
  EXPECT_FLOAT_EQ(terms[3].latency, 0.5f / 0.3f);
}

TEST(WeightedScore, ABackendThatHangsLooksAsSlowAsItsOldestRequestWaits) {
  Candidate hung = Reporting(0, 1, 0.05f);
  hung.oldest_wait_s = 3;
  const auto terms = TermsOf({hung, Reporting(1), Reporting(2)});
  EXPECT_FLOAT_EQ(terms[0].t_s, 3);
  EXPECT_FLOAT_EQ(terms[0].latency, 4);
}

TEST(WeightedScore, NoLatencyCountsAsTheMedian) {
  const auto terms = TermsOf({Reporting(0, 1, -1), Reporting(1, 1, 0.1f), Reporting(2, 1, 0.3f)});
  EXPECT_FLOAT_EQ(terms[0].latency, 1);
  for (const Terms& term : TermsOf({Reporting(0, 1, -1), Reporting(1, 5, -1)})) {
    EXPECT_FLOAT_EQ(term.latency, 1);
  }
}

TEST(WeightedScore, NoLatencyButALongWaitCountsAsTheWaitAndAShortOneForNothing) {
  Candidate fresh = Reporting(0, 1, -1);
  fresh.oldest_wait_s = 0.001f;
  EXPECT_FLOAT_EQ(TermsOf({fresh, Reporting(1)})[0].latency, 1)
      << "1 ms without an answer is not fast";
  fresh.oldest_wait_s = 0.3f;
  EXPECT_FLOAT_EQ(TermsOf({fresh, Reporting(1)})[0].latency, 3);
}

TEST(WeightedScore, CountsWhatWasSentSinceTheReport) {
  Candidate busy = Reporting(0, 0);
  busy.sent_since = 5;
  EXPECT_EQ(Favourite(*Make("weighted_score"), {busy, Reporting(1, 3)}), 1u);
}

TEST(WeightedScore, SizeIsMaxRunningTimesWeightTimesSlowStart) {
  Candidate big = Reporting(0, 15);
  big.max_running = 64;
  Candidate heavy = Reporting(1, 15);
  heavy.weight = 2;
  Candidate starting = Reporting(2, 15);
  starting.slow_start = 0.25f;
  const auto terms = TermsOf({big, heavy, starting});
  EXPECT_FLOAT_EQ(terms[0].u, 16.f / 64);
  EXPECT_FLOAT_EQ(terms[1].u, 16.f / 64);
  EXPECT_FLOAT_EQ(terms[2].u, 16.f / 8);
}

TEST(WeightedScore, UnknownSizeCountsAsTheMeanOfTheKnown) {
  Candidate unknown = Reporting(0, 15);
  unknown.max_running = 0;
  Candidate large = Reporting(1, 15);
  large.max_running = 96;
  EXPECT_FLOAT_EQ(TermsOf({unknown, large, Reporting(2)})[0].u, 16.f / 64);
  EXPECT_FLOAT_EQ(TermsOf({unknown})[0].u, 16);
}

TEST(WeightedScore, OneCandidateWithoutReportsPutsAllOnTheirOwnInFlight) {
  Candidate blind = {.id = 0, .ttft_s = 0.1f, .rung = Rung::kOwn, .max_running = 32, .inflight = 3};
  Candidate reports_idle = Reporting(1, 0);
  reports_idle.inflight = 7;
  const auto terms = TermsOf({blind, reports_idle});
  EXPECT_FLOAT_EQ(terms[0].u, 4.f / 32);
  EXPECT_FLOAT_EQ(terms[1].u, 8.f / 32) << "its report is not compared with the other's count";
  EXPECT_EQ(Favourite(*Make("weighted_score"), {blind, reports_idle}), 0u);
}

TEST(WeightedScore, ReportsOfAllRungsCompareWithEachOther) {
  Candidate polled = Reporting(0, 3);
  polled.rung = Rung::kPoll;
  Candidate piggybacked = Reporting(1, 1);
  piggybacked.rung = Rung::kPiggyback;
  piggybacked.inflight = 30;
  EXPECT_EQ(Favourite(*Make("weighted_score"), {polled, piggybacked, Reporting(2, 2)}), 1u);
}

TEST(WeightedScore, OnOwnInFlightTheBetterOfTwoDrawnAtRandomWins) {
  std::vector<Candidate> candidates;
  for (BackendId id = 0; id < 4; ++id)
    candidates.push_back({.id = id, .inflight = static_cast<float>(id)});
  const std::vector<int> picks = Spread(*Make("weighted_score"), candidates, 6000);
  // Of the six pairs, id 0 is in three, 1 is the better in two, 2 in one, 3 in none.
  EXPECT_NEAR(picks[0], 3000, 200);
  EXPECT_NEAR(picks[1], 2000, 200);
  EXPECT_NEAR(picks[2], 1000, 200);
  EXPECT_EQ(picks[3], 0);
}

TEST(WeightedScore, EqualScoresAreSettledByChance) {
  const std::vector<int> picks =
      Spread(*Make("weighted_score"), {Reporting(0), Reporting(1), Reporting(2)}, 3000);
  for (const int count : picks) EXPECT_NEAR(count, 1000, 150);
}

TEST(WeightedScore, KvUseCountsOnlyWhenAskedAndUnknownCountsAsTheMean) {
  Candidate half = Reporting(0);
  half.kv_used = 0.5f;
  Candidate most = Reporting(1);
  most.kv_used = 0.75f;
  const Candidate unknown = Reporting(2);
  EXPECT_FLOAT_EQ(TermsOf({half, most, unknown})[1].kv, 0);
  const auto terms = TermsOf({half, most, unknown}, {{"gamma", "0.5"}});
  EXPECT_FLOAT_EQ(terms[0].kv, 1);
  EXPECT_FLOAT_EQ(terms[1].kv, 3);
  EXPECT_FLOAT_EQ(terms[2].kv, 2);
  EXPECT_FLOAT_EQ(terms[1].score, 0.6f + 0.4f + 0.5f * 3);
  Candidate full = Reporting(3);
  full.kv_used = 1;
  EXPECT_TRUE(std::isfinite(TermsOf({full, half}, {{"gamma", "1"}})[0].score));
}

TEST(WeightedScore, ACachedPrefixIsWorthDelta) {
  Candidate cached = Reporting(0, 12);
  cached.prefix_tokens = 500;
  const RequestInfo request = {.prompt_tokens = 1000};
  const auto terms = TermsOf({cached, Reporting(1, 10)}, {{"delta", "2"}}, request);
  EXPECT_FLOAT_EQ(terms[0].prefix, 0.5f);
  EXPECT_LT(terms[0].score, terms[1].score);
}

TEST(WeightedScore, ScoresEveryCandidateOfALargeFleet) {
  std::vector<Candidate> fleet;
  for (BackendId id = 0; id < 1000; ++id) fleet.push_back(Reporting(id, 20));
  fleet[777].reported_total = 1;
  EXPECT_EQ(Favourite(*Make("weighted_score"), fleet), 777u);
  std::vector<Terms> terms(fleet.size());
  Make("weighted_score")->Pick({.random = 5}, fleet, terms);
  for (const Terms& term : terms) EXPECT_FLOAT_EQ(term.latency, 1);
}

TEST(WeightedScore, AbsurdFiguresStillPickACandidate) {
  constexpr float kBad[] = {0, -1, 1e30f, std::numeric_limits<float>::infinity(),
                            std::numeric_limits<float>::quiet_NaN()};
  for (const float a : kBad) {
    for (const float b : kBad) {
      Candidate odd = {.id = 0,
                       .weight = a,
                       .slow_start = b,
                       .ttft_s = b,
                       .oldest_wait_s = a,
                       .rung = Rung::kPush,
                       .reported_total = a,
                       .max_running = b,
                       .kv_used = a,
                       .sent_since = b,
                       .prefix_tokens = a};
      const std::vector<Candidate> candidates = {odd, Reporting(1), odd};
      const auto index = Make("weighted_score", {{"gamma", "1"}, {"delta", "1"}})
                             ->Pick({.random = 3, .prompt_tokens = 9}, candidates, {});
      ASSERT_TRUE(index.has_value());
      EXPECT_LT(*index, candidates.size());
    }
  }
}

TEST(WeightedScore, RefusesWeightsThatMeanNothing) {
  const auto message = [](const Params& params) {
    return std::string(MakePolicy("weighted_score", params).status().message());
  };
  EXPECT_EQ(
      message({{"alpha", "0"}, {"beta", "0"}}),
      "alpha and beta are both 0, so neither latency nor queue would count; give one of them a "
      "value above 0");
  EXPECT_EQ(message({{"alpha", "101"}}), "alpha: \"101\" is not a number from 0 to 100");
  EXPECT_EQ(message({{"beta", "nan"}}), "beta: \"nan\" is not a number from 0 to 100");
  EXPECT_EQ(message({{"beta", ""}}), "beta: \"\" is not a number from 0 to 100");
  EXPECT_EQ(message({{"gama", "1"}}),
            "weighted_score has no setting \"gama\"; did you mean \"gamma\"?");
}

}  // namespace
}  // namespace penstock::lb
