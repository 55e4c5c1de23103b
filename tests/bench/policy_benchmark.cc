// Time of one pick. weighted_score stays under 1 us for 64 candidates.
#include <benchmark/benchmark.h>

#include <vector>

#include "lb-policies/choice.h"
#include "lb-policies/policy.h"

namespace penstock::lb {
namespace {

void Pick(benchmark::State& state, std::string_view name, const Params& params) {
  Dice dice(1);
  std::vector<Candidate> candidates(static_cast<size_t>(state.range(0)));
  for (size_t i = 0; i < candidates.size(); ++i) {
    candidates[i] = {.id = static_cast<BackendId>(i),
                     .ttft_s = dice.Unit(),
                     .rung = Rung::kPush,
                     .reported_total = static_cast<float>(dice.Below(100)),
                     .max_running = 64,
                     .kv_used = dice.Unit(),
                     .inflight = static_cast<float>(dice.Below(50))};
  }
  const auto policy = MakePolicy(name, params);
  std::vector<Terms> terms(candidates.size());
  for (auto _ : state) {
    benchmark::DoNotOptimize((*policy)->Pick({.random = dice.Next()}, candidates, terms));
  }
}

BENCHMARK_CAPTURE(Pick, weighted_score, "weighted_score", {})->Arg(3)->Arg(16)->Arg(64)->Arg(1024);
BENCHMARK_CAPTURE(Pick, weighted_score_all_terms, "weighted_score",
                  {{"gamma", "0.2"}, {"delta", "0.2"}})
    ->Arg(64);
BENCHMARK_CAPTURE(Pick, least_request, "least_request", {})->Arg(2)->Arg(64);
BENCHMARK_CAPTURE(Pick, round_robin, "round_robin", {})->Arg(64);
BENCHMARK_CAPTURE(Pick, random, "random", {})->Arg(64);

}  // namespace
}  // namespace penstock::lb

BENCHMARK_MAIN();
