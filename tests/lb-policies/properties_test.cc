// What must hold for every policy, tried with many seeds, and for a small fleet
// that answers: a closed loop of clients, each sending its next request when its
// answer has come.
#include <algorithm>
#include <cmath>

#include "tests/lb-policies/policy_testing.h"

namespace penstock::lb {
namespace {

class EveryPolicy : public testing::TestWithParam<std::string_view> {};

INSTANTIATE_TEST_SUITE_P(Policies, EveryPolicy, testing::ValuesIn([] {
                           std::vector<std::string_view> names;
                           for (const PolicyInfo& info : Policies()) names.push_back(info.name);
                           return names;
                         }()),
                         [](const auto& info) { return std::string(info.param); });

Candidate AnyCandidate(BackendId id, Dice& dice) {
  return {.id = id,
          .weight = 0.1f + 4 * dice.Unit(),
          .slow_start = dice.Below(4) == 0 ? 0.1f : 1,
          .ttft_s = dice.Below(3) == 0 ? -1 : dice.Unit(),
          .oldest_wait_s = dice.Below(3) == 0 ? 3 * dice.Unit() : 0,
          .rung = static_cast<Rung>(1 + dice.Below(dice.Below(2) == 0 ? 3 : 4)),
          .reported_total = static_cast<float>(dice.Below(100)),
          .max_running = dice.Below(4) == 0 ? 0 : static_cast<float>(1 + dice.Below(256)),
          .kv_used = dice.Below(3) == 0 ? -1 : dice.Unit(),
          .sent_since = static_cast<float>(dice.Below(20)),
          .inflight = static_cast<float>(dice.Below(50)),
          .prefix_tokens = static_cast<float>(dice.Below(1000))};
}

TEST_P(EveryPolicy, PicksACandidateAndTheSameOneForTheSameFigures) {
  for (uint64_t seed = 0; seed < 10'000; ++seed) {
    Dice dice(seed);
    std::vector<Candidate> candidates(1 + dice.Below(seed % 50 == 0 ? 300 : 12));
    for (size_t i = 0; i < candidates.size(); ++i)
      candidates[i] = AnyCandidate(static_cast<BackendId>(i), dice);
    const RequestInfo request = {.random = dice.Next(),
                                 .prompt_tokens = static_cast<uint32_t>(dice.Below(2000))};
    std::vector<Terms> terms(candidates.size());
    const auto index = Make(GetParam())->Pick(request, candidates, terms);
    ASSERT_TRUE(index.has_value() && *index < candidates.size()) << "seed " << seed;
    EXPECT_EQ(Make(GetParam())->Pick(request, candidates, {}), index) << "seed " << seed;
  }
}

TEST_P(EveryPolicy, SpreadsAnIdleFleetEvenly) {
  const std::vector<Candidate> fleet = {{.id = 0}, {.id = 1}, {.id = 2}, {.id = 3}};
  for (const int count : Spread(*Make(GetParam()), fleet, 10'000)) EXPECT_NEAR(count, 2500, 250);
}

// A fleet in simulated time. A backend runs `slots` requests side by side, each for
// its service time; the others wait there.
struct Fleet {
  struct Request {
    double sent = 0;
    double done = 0;  // When its answer is complete.
  };
  struct Engine {
    double service_s = 1;
    size_t slots = 4;
    std::vector<Request> open;
    float ttft_s = -1;
    double ttft_at = 0;
    int served = 0;
  };
  std::vector<Engine> engines;
  double now = 0;

  // When a request that is sent now would be done.
  double DoneAt(const Engine& engine) const {
    if (engine.open.size() < engine.slots) return now + engine.service_s;
    std::vector<double> done;
    for (const Request& request : engine.open) done.push_back(request.done);
    std::sort(done.begin(), done.end());
    return done[done.size() - engine.slots] + engine.service_s;
  }

  std::vector<Candidate> Candidates(Rung rung) const {
    std::vector<Candidate> candidates;
    for (size_t i = 0; i < engines.size(); ++i) {
      const Engine& engine = engines[i];
      const auto open = static_cast<float>(engine.open.size());
      double oldest = now;
      for (const Request& request : engine.open) oldest = std::min(oldest, request.sent);
      candidates.push_back({.id = static_cast<BackendId>(i),
                            .ttft_s = engine.ttft_s,
                            .oldest_wait_s = static_cast<float>(now - oldest),
                            .rung = rung,
                            .reported_total = open,
                            .max_running = static_cast<float>(engine.slots),
                            .inflight = open});
    }
    return candidates;
  }

  // Runs `clients` until `requests` are answered.
  void Run(Policy& policy, Rung rung, int clients, int requests, uint64_t seed) {
    Dice dice(seed);
    for (int answered = -clients; answered < requests; ++answered) {
      if (answered >= 0) FinishNext();
      const auto index = policy.Pick({.random = dice.Next()}, Candidates(rung), {});
      Engine& engine = engines[*index];
      const double jitter = 0.9 + 0.2 * dice.Unit();
      engine.open.push_back({now, now + (DoneAt(engine) - now) * jitter});
      ++engine.served;
    }
  }

  // The first token of an answer comes when a tenth of its service is over.
  void FinishNext() {
    Engine* next = nullptr;
    size_t which = 0;
    for (Engine& engine : engines) {
      for (size_t i = 0; i < engine.open.size(); ++i) {
        if (next == nullptr || engine.open[i].done < next->open[which].done) {
          next = &engine;
          which = i;
        }
      }
    }
    now = next->open[which].done;
    const double ttft = now - next->open[which].sent - 0.9 * next->service_s;
    const double kept = next->ttft_s * std::exp((next->ttft_at - now) / 10);
    next->ttft_s = static_cast<float>(std::max({ttft, kept, 0.001}));
    next->ttft_at = now;
    next->open.erase(next->open.begin() + static_cast<std::ptrdiff_t>(which));
  }
};

TEST(WeightedScoreFleet, ABackendTwiceAsSlowGetsAtMostSevenTenthsOfAFairShare) {
  for (const Rung rung : {Rung::kPush, Rung::kOwn}) {
    for (uint64_t seed = 1; seed <= 5; ++seed) {
      for (const int clients : {4, 8, 16, 32}) {
        Fleet fleet;
        fleet.engines = {{.service_s = 1}, {.service_s = 1}, {.service_s = 2}};
        auto policy = Make("weighted_score");
        fleet.Run(*policy, rung, clients, 10'000, seed);
        const double fair = (10'000 + clients) / 3.0;
        EXPECT_LE(fleet.engines[2].served, 0.7 * fair)
            << "rung " << static_cast<int>(rung) << ", seed " << seed << ", clients " << clients;
        EXPECT_GT(fleet.engines[2].served, 0) << "it is never given up";
      }
    }
  }
}

TEST(WeightedScoreFleet, EqualBackendsShareEvenly) {
  for (uint64_t seed = 1; seed <= 5; ++seed) {
    Fleet fleet;
    fleet.engines.resize(3);
    auto policy = Make("weighted_score");
    fleet.Run(*policy, Rung::kPush, 12, 10'000, seed);
    for (const Fleet::Engine& engine : fleet.engines) {
      EXPECT_NEAR(engine.served, 10'012 / 3.0, 0.1 * 10'012 / 3) << "seed " << seed;
    }
  }
}

TEST(WeightedScoreFleet, ABackendThatStopsAnsweringGetsNoMoreThanAHandful) {
  Fleet fleet;
  fleet.engines.resize(3);
  auto policy = Make("weighted_score");
  fleet.Run(*policy, Rung::kPush, 12, 1000, 1);
  const int before = fleet.engines[0].served;
  for (Fleet::Request& request : fleet.engines[0].open) request.done += 1e6;
  fleet.engines[0].service_s = 1e6;
  fleet.Run(*policy, Rung::kPush, 12, 300, 2);
  EXPECT_LE(fleet.engines[0].served - before, 12);
}

}  // namespace
}  // namespace penstock::lb
