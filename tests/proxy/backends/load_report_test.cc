#include "proxy/backends/load_report.h"

#include <cmath>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "proxy/base/random.h"

namespace penstock {
namespace {

constexpr MonoTime kNow = 1000 * kSecond;

constexpr std::string_view kLine =
    R"x({"epoch":77,"seq":12,"age_us":1500,"state":"ready","model":"lexicon-5m (emulated)","running":3,)x"
    R"("waiting":2,"waiting_tokens":900,"running_tokens":4096,"max_running":64,"kv_blocks_used":250,)"
    R"("kv_blocks_total":1000,"prefill_tokens_per_s":12000.5,"step_ms":21.5,"ttft_ms_p50":130.25,)"
    R"("weights":"9f86d081884c7d65","flavour":{"of":["the",1]}})";

absl::StatusOr<LoadReport> Line(std::string_view line) {
  return ParseLoadLine(line, lb::Rung::kPush, kNow);
}

TEST(LoadLine, CarriesEveryFigure) {
  const auto report = Line(kLine);
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->epoch, 77u);
  EXPECT_EQ(report->seq, 12u);
  EXPECT_EQ(report->arrived, kNow);
  EXPECT_EQ(report->made, kNow - 1500);
  EXPECT_EQ(report->state, EngineState::kReady);
  EXPECT_STREQ(report->model, "lexicon-5m (emulated)");
  EXPECT_EQ(report->running, 3);
  EXPECT_EQ(report->waiting, 2);
  EXPECT_EQ(report->waiting_tokens, 900);
  EXPECT_EQ(report->running_tokens, 4096);
  EXPECT_EQ(report->max_running, 64);
  EXPECT_FLOAT_EQ(report->kv_used(), 0.25f);
  EXPECT_FLOAT_EQ(report->prefill_tokens_per_s, 12000.5f);
  EXPECT_FLOAT_EQ(report->step_ms, 21.5f);
  EXPECT_FLOAT_EQ(report->ttft_ms_p50, 130.25f);
  EXPECT_NE(report->weights, 0u);
}

TEST(LoadLine, WhatIsNotSaidIsUnknown) {
  const auto report = Line(R"({"waiting":0,"running":null})");
  ASSERT_TRUE(report.ok());
  EXPECT_LT(report->running, 0);
  EXPECT_LT(report->max_running, 0);
  EXPECT_LT(report->kv_used(), 0);
  EXPECT_EQ(report->made, kNow);
}

TEST(LoadLine, RefusesWhatCannotBe) {
  for (const char* line : {
           "", "{}", "[]", "3", "nonsense", R"({"running":1)", R"({"running":-1})",
           R"({"running":NaN})", R"({"running":1e999})", R"({"running":1e308})",
           R"({"running":"3"})", R"({"running":true})", R"({"running":[1]})",
           R"({"running":1,"age_us":-5})", R"({"running":1,"age_us":1e12})",
           R"({"running":1,"seq":-1})", R"({"running":1,"state":7})",
           R"({"running":1,"kv_blocks_used":11,"kv_blocks_total":10})",
           R"({"running":1} {"running":2})"}) {
    const auto report = Line(line);
    EXPECT_FALSE(report.ok()) << line;
    EXPECT_NE(report.status().message().find("load report: "), std::string::npos);
  }
}

TEST(LoadLine, RefusesALineBeyondTheLimit) {
  const std::string line = R"({"running":1,"pad":")" + std::string(kLoadLineMax, 'x') + R"("})";
  EXPECT_FALSE(Line(line).ok());
}

TEST(LoadLine, CutsALongModelName) {
  const auto report = Line(R"({"running":1,"model":")" + std::string(500, 'm') + R"("})");
  ASSERT_TRUE(report.ok());
  EXPECT_EQ(std::string(report->model), std::string(LoadReport::kModelBytes - 1, 'm'));
}

TEST(Orca, ReadsTheTextOfEveryEmitter) {
  for (const char* field : {
           "TEXT named_metrics.kv_cache_usage_perc=0.4, named_metrics.num_requests_waiting=2",
           "named_metrics.kv_cache_usage_perc=0.4,named_metrics.num_requests_waiting=2",
           "TEXT named_metrics.kv_cache_usage_perc:0.4,named_metrics.num_requests_waiting:2.0",
           R"(JSON {"named_metrics": {"kv_cache_usage_perc": 0.4, "num_requests_waiting": 2.0}})",
           "TEXT cpu_utilization=1.5, named_metrics.kv_cache_utilization=0.4, "
           "named_metrics.num_requests_waiting=2, named_metrics.max_token_capacity=12345"}) {
    const auto report = ParseOrca(field, kNow);
    ASSERT_TRUE(report.ok()) << field << ": " << report.status();
    EXPECT_EQ(report->rung, lb::Rung::kPiggyback);
    EXPECT_EQ(report->waiting, 2) << field;
    EXPECT_LT(report->running, 0) << field;
    EXPECT_NEAR(report->kv_used(), 0.4, 1e-6) << field;
  }
}

TEST(Orca, ReadsOurEnginesField) {
  const auto report = ParseOrca(
      "TEXT named_metrics.kv_cache_usage_perc=0, named_metrics.num_requests_waiting=0, "
      "named_metrics.num_requests_running=5, named_metrics.max_running=64", kNow);
  ASSERT_TRUE(report.ok());
  EXPECT_EQ(report->running, 5);
  EXPECT_EQ(report->max_running, 64);
  EXPECT_EQ(report->kv_used(), 0);
}

TEST(Orca, OneBadEntryVoidsTheWholeReport) {
  for (const char* field : {
           "", "TEXT ", "TEXT running", "TEXT =3", "TEXT named_metrics.running=", "TEXT a=b",
           "TEXT named_metrics.num_requests_waiting=-1", "TEXT named_metrics.running=nan",
           "TEXT named_metrics.running=inf", "TEXT named_metrics.running=1e300",
           "TEXT named_metrics.kv_cache_usage_perc=1.5", "TEXT named_metrics.running=1,,",
           "JSON {", "JSON []", R"(JSON {"named_metrics": {"running": -1}})", "BIN AAAA",
           "PROTO x"}) {
    EXPECT_FALSE(ParseOrca(field, kNow).ok()) << field;
  }
}

// Valid inputs, damaged at random: nothing crashes, and what is accepted is sane.
TEST(LoadReportFuzz, NoDamageYieldsAnInsaneReport) {
  const std::vector<std::string> seeds = {
      std::string(kLine),
      "TEXT named_metrics.kv_cache_usage_perc=0.4, named_metrics.num_requests_waiting=2",
      R"(JSON {"named_metrics": {"kv_cache_usage_perc": 0.4, "num_requests_waiting": 2.0}})"};
  const std::string_view splices[] = {"-", "e999", "NaN", "\"", "{", "}", "null", ",", "\\u0000", "1e308"};
  for (uint64_t seed = 1; seed <= 30'000; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    Random random(seed);
    std::string text = seeds[random.Below(3)];
    for (uint32_t damage = 1 + random.Below(4); damage > 0 && !text.empty(); --damage) {
      const size_t at = random.Below(static_cast<uint32_t>(text.size()));
      switch (random.Below(4)) {
        case 0: text[at] = static_cast<char>(random.Below(256)); break;
        case 1: text.erase(at, 1 + random.Below(8)); break;
        case 2: text.insert(at, splices[random.Below(std::size(splices))]); break;
        case 3: text.resize(at); break;
      }
    }
    for (const auto& report : {Line(text), ParseOrca(text, kNow)}) {
      if (!report.ok()) continue;
      for (const float figure :
           {report->running, report->waiting, report->waiting_tokens, report->running_tokens,
            report->max_running, report->kv_blocks_used, report->kv_blocks_total,
            report->prefill_tokens_per_s, report->step_ms, report->ttft_ms_p50}) {
        ASSERT_TRUE(figure == -1 || (figure >= 0 && figure <= 1.1e12f)) << text;
      }
      ASSERT_LE(report->kv_used(), 1) << text;
      ASSERT_LE(report->made, kNow) << text;
      ASSERT_GE(report->made, kNow - 3600 * kSecond) << text;
      ASSERT_EQ(report->model[LoadReport::kModelBytes - 1], '\0');
    }
  }
}

}  // namespace
}  // namespace penstock
