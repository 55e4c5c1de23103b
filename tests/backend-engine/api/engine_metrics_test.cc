#include "backend-engine/api/engine_metrics.h"

#include <gtest/gtest.h>

#include <set>
#include <sstream>
#include <string>

namespace penstock::engine {
namespace {

const NodeLabels kLabels = {.model = "m", .device = "cpu", .dtype = "bf16", .version = "1",
                            .tensor_parallel = 2, .block_tokens = 16};
const EngineLoad kLoad = {.state = NodeState::kReady,
                          .running = 2,
                          .waiting = 3,
                          .kv_blocks_used = 10,
                          .kv_blocks_total = 40,
                          .generated_tokens = 99};

std::string Text(MetricNames names) {
  EngineMetrics metrics(names);
  metrics.OnFirstToken(0.03);
  metrics.OnNextToken(0.004);
  metrics.OnEnd(EndReason::kStop, 0.5);
  metrics.OnEnd(EndReason::kAbort, 0.1);
  metrics.OnEnd(EndReason::kSlowClient, 0.1);
  metrics.OnAnswer(200);
  metrics.OnAnswer(429);
  return metrics.Text(kLabels, kLoad, 1);
}

TEST(EngineMetrics, CarriesOurOwnNames) {
  const std::string text = Text(MetricNames::kPenstock);
  for (const char* line : {
           "penstock_engine_requests_running{model=\"m\"} 2\n",
           "penstock_engine_requests_waiting{model=\"m\"} 3\n",
           "penstock_engine_kv_cache_usage_ratio{model=\"m\"} 0.25\n",
           "penstock_engine_kv_blocks{model=\"m\",state=\"free\"} 30\n",
           "penstock_engine_generation_tokens_total{model=\"m\"} 99\n",
           "penstock_engine_time_to_first_token_seconds_count{model=\"m\"} 1\n",
           "penstock_engine_e2e_request_latency_seconds_count{model=\"m\"} 1\n",
           "penstock_engine_request_success_total{model=\"m\",finish_reason=\"abort\"} 1\n",
           "penstock_engine_request_success_total{model=\"m\",finish_reason=\"error\"} 0\n",
           "penstock_engine_request_success_total{model=\"m\",finish_reason=\"slow_client\"} 1\n",
           "penstock_engine_http_answers_total{model=\"m\",code=\"4xx\"} 1\n",
           "penstock_engine_info{model=\"m\",version=\"1\",device=\"cpu\",tp=\"2\",dtype=\"bf16\"} 1\n",
       }) {
    EXPECT_NE(text.find(line), std::string::npos) << line << text;
  }
}

TEST(EngineMetrics, SaysHowManyPlacesOfBlocksInUseHoldNoToken) {
  EngineLoad load = kLoad;
  load.running_tokens = 120;  // Of 160 places.
  const EngineMetrics metrics(MetricNames::kPenstock);
  EXPECT_NE(metrics.Text(kLabels, load, 1)
                .find("penstock_engine_kv_cache_fragmentation_ratio{model=\"m\"} 0.25\n"),
            std::string::npos);
  load.kv_blocks_used = 0;
  load.running_tokens = 0;
  EXPECT_NE(metrics.Text(kLabels, load, 1)
                .find("penstock_engine_kv_cache_fragmentation_ratio{model=\"m\"} 0\n"),
            std::string::npos);
}

TEST(EngineMetrics, CarriesWhatGpusTellAndLeavesOutWhatTheyDoNot) {
  const std::vector<GpuInUse> gpus = {{.index = 0, .memory = {{"kv", 7}, {"unused", 1}}},
                                      {.index = 3, .memory = {{"kv", 9}}}};
  DeviceGauges devices{.gpus = gpus, .reading = {.age_seconds = 0.5, .figures = {{}, {}}}};
  devices.reading.figures[0].utilization = 0.75;
  devices.reading.figures[1].utilization = 0.5;
  devices.reading.figures[1].power = 312.5;
  devices.reading.figures[1].link_bytes_sent = 4096;
  const EngineMetrics metrics(MetricNames::kPenstock);
  const std::string text = metrics.Text(kLabels, kLoad, 1, devices);
  for (const char* line : {
           "penstock_engine_gpu_planned_bytes{model=\"m\",gpu=\"0\",part=\"unused\"} 1\n",
           "penstock_engine_gpu_planned_bytes{model=\"m\",gpu=\"3\",part=\"kv\"} 9\n",
           "penstock_engine_gpu_figures_age_seconds{model=\"m\"} 0.5\n",
           "penstock_engine_gpu_utilization_ratio{model=\"m\",gpu=\"0\"} 0.75\n",
           "penstock_engine_gpu_utilization_ratio{model=\"m\",gpu=\"3\"} 0.5\n",
           "penstock_engine_gpu_power_watts{model=\"m\",gpu=\"3\"} 312.5\n",
           "# TYPE penstock_engine_gpu_nvlink_sent_bytes_total counter\n",
           "penstock_engine_gpu_nvlink_sent_bytes_total{model=\"m\",gpu=\"3\"} 4096\n",
       }) {
    EXPECT_NE(text.find(line), std::string::npos) << line << text;
  }
  EXPECT_EQ(text.find("gpu_power_watts{model=\"m\",gpu=\"0\"}"), std::string::npos) << text;
  EXPECT_EQ(text.find("Nan"), std::string::npos) << text;
  EXPECT_EQ(text.find("gpu_temperature"), std::string::npos) << text;

  // A driver that does not come back: the age alone. No library: not even that.
  devices.reading = {.age_seconds = 60};
  const std::string hung = metrics.Text(kLabels, kLoad, 1, devices);
  EXPECT_NE(hung.find("gpu_figures_age_seconds{model=\"m\"} 60\n"), std::string::npos) << hung;
  EXPECT_EQ(hung.find("gpu_utilization"), std::string::npos);
  devices.reading.possible = false;
  EXPECT_EQ(metrics.Text(kLabels, kLoad, 1, devices).find("gpu_figures_age"), std::string::npos);
}

TEST(EngineMetrics, CarriesTheNamesOfVllmWhereAskedTo) {
  const std::string text = Text(MetricNames::kVllm);
  for (const char* line : {
           "vllm:num_requests_running{engine=\"0\",model_name=\"m\"} 2\n",
           "vllm:num_requests_waiting{engine=\"0\",model_name=\"m\"} 3\n",
           "vllm:kv_cache_usage_perc{engine=\"0\",model_name=\"m\"} 0.25\n",
           "vllm:cache_config_info{engine=\"0\",model_name=\"m\",block_size=\"16\","
           "num_gpu_blocks=\"40\"} 1\n",
           "vllm:request_success_total{engine=\"0\",model_name=\"m\",finished_reason=\"stop\"} 1\n",
           "vllm:request_success_total{engine=\"0\",model_name=\"m\",finished_reason=\"abort\"} 2\n",
       }) {
    EXPECT_NE(text.find(line), std::string::npos) << line << text;
  }
  EXPECT_EQ(text.find("penstock_"), std::string::npos);
}

TEST(EngineMetrics, SaysOnceAndWithHelpWhatEachFamilyIs) {
  for (const MetricNames names : {MetricNames::kPenstock, MetricNames::kVllm}) {
    std::istringstream lines(Text(names));
    std::set<std::string> families;
    std::string line;
    while (std::getline(lines, line)) {
      if (line.rfind("# HELP ", 0) != 0) continue;
      const std::string rest = line.substr(7);
      const size_t space = rest.find(' ');
      EXPECT_TRUE(families.insert(rest.substr(0, space)).second) << line;
      EXPECT_GT(rest.size(), space + 1) << line;
    }
    EXPECT_GT(families.size(), 9u);
  }
}

}  // namespace
}  // namespace penstock::engine
