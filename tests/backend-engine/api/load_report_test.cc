#include "backend-engine/api/load_report.h"

#include <gtest/gtest.h>

namespace penstock::engine {
namespace {

LoadReport Busy() {
  LoadReport report{.epoch = 7, .seq = 3, .age_us = 12, .model = "m", .weights = "00ff"};
  report.figures = {.state = NodeState::kReady,
                    .running = 2,
                    .waiting = 1,
                    .waiting_tokens = 40,
                    .running_tokens = 300,
                    .max_running = 64,
                    .kv_blocks_used = 20,
                    .kv_blocks_total = 80,
                    .prefill_tokens_per_s = 1500.5F,
                    .step_ms = 2.25F,
                    .ttft_ms_p50 = 31};
  return report;
}

TEST(LoadLine, HasEveryFigureInOneLine) {
  EXPECT_EQ(LoadLine(Busy()),
            R"({"epoch":7,"seq":3,"age_us":12,"state":"ready","model":"m","running":2,"waiting":1,)"
            R"("waiting_tokens":40,"running_tokens":300,"max_running":64,"kv_blocks_used":20,)"
            R"("kv_blocks_total":80,"prefill_tokens_per_s":1500.500,"step_ms":2.250,)"
            R"("ttft_ms_p50":31.000,"weights":"00ff"})" "\n");
}

TEST(LoadLine, LeavesOutWhatIsNotKnown) {
  EXPECT_EQ(LoadLine({.epoch = 7, .seq = 1, .model = "m"}),
            R"({"epoch":7,"seq":1,"age_us":0,"state":"loading","model":"m","running":0,)"
            R"("waiting":0,"waiting_tokens":0,"running_tokens":0})" "\n");
}

TEST(OrcaValue, IsTextUnlessJsonIsAskedForInAnyCase) {
  EXPECT_EQ(OrcaValue(Busy(), OrcaFormatFrom("")),
            "TEXT named_metrics.kv_cache_usage_perc=0.25, named_metrics.num_requests_waiting=1, "
            "named_metrics.num_requests_running=2, named_metrics.max_running=64, "
            "named_metrics.epoch=7, named_metrics.seq=3");
  EXPECT_EQ(OrcaValue(Busy(), OrcaFormatFrom("Json")),
            R"(JSON {"named_metrics": {"kv_cache_usage_perc": 0.25, "num_requests_waiting": 1, )"
            R"("num_requests_running": 2, "max_running": 64, "epoch": 7, "seq": 3}})");
}

TEST(WorthTelling, IsAChangeOfCountsAndNotOfTime) {
  const EngineLoad before = Busy().figures;
  EngineLoad after = before;
  after.step_ms = 9;
  after.running_tokens += 10;
  ++after.seq;
  EXPECT_FALSE(WorthTelling(before, after));
  ++after.running;
  EXPECT_TRUE(WorthTelling(before, after));
  after = before;
  after.state = NodeState::kDraining;
  EXPECT_TRUE(WorthTelling(before, after));
}

}  // namespace
}  // namespace penstock::engine
