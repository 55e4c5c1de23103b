#include "proxy/backends/breaker.h"

#include <atomic>
#include <cstdint>
#include <deque>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "config/parse.h"
#include "proxy/base/random.h"
#include "tests/support/seeds.h"

namespace penstock {
namespace {

constexpr MonoTime kStart = 5000 * kSecond;
constexpr uint64_t kMiddle = 2048;  // A random word that means no jitter, almost.

const BreakerSettings kDefaults{config::CircuitBreaker{}};

void Trip(Breaker& breaker, MonoTime now) {
  ASSERT_TRUE(breaker.Open(kDefaults, BreakerCause::kConsecutive, now, kMiddle));
}

TEST(Breaker, OpensAtTheFifthFaultInARow) {
  Breaker breaker;
  for (int i = 0; i < 4; ++i) {
    EXPECT_FALSE(breaker.Fault(kDefaults, 0, kStart, 0).has_value());
  }
  EXPECT_EQ(breaker.Fault(kDefaults, 0, kStart, 0), BreakerCause::kConsecutive);
}

TEST(Breaker, ASuccessStartsTheRowAnew) {
  Breaker breaker;
  for (int i = 0; i < 4; ++i) breaker.Fault(kDefaults, 0, kStart, 0);
  breaker.Success(kDefaults, 0, kStart);
  for (int i = 0; i < 4; ++i) {
    EXPECT_FALSE(breaker.Fault(kDefaults, 0, kStart, 0).has_value());
  }
}

TEST(Breaker, OpensAtHalfFaultsOfTwentyInTenSeconds) {
  Breaker breaker;
  for (int i = 0; i < 9; ++i) {
    breaker.Success(kDefaults, 0, kStart + i * kSecond);
    EXPECT_FALSE(breaker.Fault(kDefaults, 0, kStart + i * kSecond, 0).has_value());
  }
  breaker.Success(kDefaults, 0, kStart + 9 * kSecond);
  EXPECT_EQ(breaker.Fault(kDefaults, 0, kStart + 9 * kSecond, 0), BreakerCause::kRate);
}

TEST(Breaker, ForgetsFaultsThatAreOlderThanTheWindow) {
  Breaker breaker;
  for (int i = 0; i < 40; ++i) {
    const MonoTime now = kStart + i * kSecond;  // One of each a second: 10 and 10 in a window.
    breaker.Success(kDefaults, 0, now);
    if (i < 9) {
      EXPECT_FALSE(breaker.Fault(kDefaults, 0, now, 0).has_value());
    }
  }
  EXPECT_FALSE(breaker.Fault(kDefaults, 0, kStart + 40 * kSecond, 0).has_value());
}

TEST(Breaker, StaysOpenForItsTimeThenLetsOneProbeThrough) {
  Breaker breaker;
  Trip(breaker, kStart);
  const MonoTime until = breaker.view().until;
  EXPECT_NEAR(until - kStart, kSecond, kSecond / 100);
  EXPECT_FALSE(breaker.Enter(kDefaults, until - kMillisecond).admitted);
  const Breaker::Pass probe = breaker.Enter(kDefaults, until);
  EXPECT_TRUE(probe.admitted);
  EXPECT_NE(probe.probe, 0);
  EXPECT_EQ(breaker.view().state, BreakerState::kHalfOpen);
  EXPECT_FALSE(breaker.Enter(kDefaults, until).admitted);
}

TEST(Breaker, EachFailedProbeDoublesTheOpenTimeUpToTheMost) {
  Breaker breaker;
  MonoTime now = kStart;
  Trip(breaker, now);
  std::vector<MonoTime> times;
  for (int i = 0; i < 8; ++i) {
    times.push_back((breaker.view().until - now + kSecond / 2) / kSecond);
    now = breaker.view().until;
    const Breaker::Pass probe = breaker.Enter(kDefaults, now);
    ASSERT_TRUE(probe.admitted);
    breaker.Fault(kDefaults, probe.probe, now, kMiddle);
  }
  EXPECT_EQ(times, (std::vector<MonoTime>{1, 2, 4, 8, 16, 30, 30, 30}));
}

TEST(Breaker, JitterStaysWithinAFifth) {
  for (uint64_t random = 0; random < 8192; random += 7) {
    Breaker breaker;
    breaker.Open(kDefaults, BreakerCause::kRate, kStart, random);
    EXPECT_GE(breaker.view().until - kStart, 799 * kMillisecond);
    EXPECT_LE(breaker.view().until - kStart, 1200 * kMillisecond);
  }
}

TEST(Breaker, ABackendThatFlapsWaitsLongerEachTime) {
  Breaker breaker;
  MonoTime now = kStart;
  Trip(breaker, now);
  now = breaker.view().until;
  for (int i = 0; i < 3; ++i) {
    const auto probe = breaker.Enter(kDefaults, now);
    breaker.Success(kDefaults, probe.probe, now);
  }
  ASSERT_EQ(breaker.view().state, BreakerState::kClosed);
  now += kSecond;
  Trip(breaker, now);
  EXPECT_NEAR(breaker.view().until - now, 2 * kSecond, kSecond / 50);
}

TEST(Breaker, ABackendThatWasWellForAWhileStartsFromTheShortestTime) {
  Breaker breaker;
  MonoTime now = kStart;
  Trip(breaker, now);
  now = breaker.view().until;
  for (int i = 0; i < 3; ++i) {
    const auto probe = breaker.Enter(kDefaults, now);
    breaker.Success(kDefaults, probe.probe, now);
  }
  now += 31 * kSecond;
  Trip(breaker, now);
  EXPECT_NEAR(breaker.view().until - now, kSecond, kSecond / 50);
}

TEST(Breaker, AProbeThatEndsInALaterPeriodCountsForNothing) {
  Breaker breaker;
  Trip(breaker, kStart);
  const auto late = breaker.Enter(kDefaults, kStart + 2 * kSecond);
  breaker.Force(BreakerForce::kOpen, kStart + 3 * kSecond);
  breaker.Force(BreakerForce::kAuto, kStart + 3 * kSecond);
  Trip(breaker, kStart + 4 * kSecond);
  const auto probe = breaker.Enter(kDefaults, kStart + 8 * kSecond);
  ASSERT_TRUE(probe.admitted);
  breaker.Fault(kDefaults, late.probe, kStart + 8 * kSecond, 0);
  breaker.Success(kDefaults, late.probe, kStart + 8 * kSecond);
  breaker.Neutral(late.probe);
  EXPECT_EQ(breaker.view().state, BreakerState::kHalfOpen);
  EXPECT_EQ(breaker.view().successes, 0u);
  EXPECT_EQ(breaker.view().probes, 1u);
}

TEST(Breaker, AnOperatorsWordHoldsAgainstEverything) {
  Breaker breaker;
  breaker.Force(BreakerForce::kClosed, kStart);
  for (int i = 0; i < 50; ++i) {
    EXPECT_FALSE(breaker.Fault(kDefaults, 0, kStart, 0).has_value());
  }
  EXPECT_FALSE(breaker.Open(kDefaults, BreakerCause::kRate, kStart, 0));
  EXPECT_TRUE(breaker.Enter(kDefaults, kStart).admitted);
  breaker.Force(BreakerForce::kOpen, kStart);
  breaker.Tick(kStart + 3600 * kSecond);
  EXPECT_FALSE(breaker.Enter(kDefaults, kStart + 3600 * kSecond).admitted);
  breaker.Force(BreakerForce::kAuto, kStart + 3600 * kSecond);
  EXPECT_EQ(breaker.view().state, BreakerState::kClosed);
  EXPECT_TRUE(breaker.Enter(kDefaults, kStart + 3600 * kSecond).admitted);
}

TEST(Breaker, KeepsTheLastTenTransitionsWithTheirCause) {
  Breaker breaker;
  MonoTime now = kStart;
  Trip(breaker, now);
  for (int i = 0; i < 6; ++i) {
    now = breaker.view().until;
    const auto probe = breaker.Enter(kDefaults, now);
    breaker.Fault(kDefaults, probe.probe, now, kMiddle);
  }
  const auto transitions = breaker.transitions();
  ASSERT_EQ(transitions.size(), Breaker::kTransitionsKept);
  EXPECT_EQ(transitions.back().at, now);
  EXPECT_EQ(transitions.back().cause, BreakerCause::kProbeFault);
  EXPECT_EQ(transitions.back().to, BreakerState::kOpen);
  EXPECT_EQ(transitions[8].cause, BreakerCause::kOpenTimePassed);
  EXPECT_EQ(breaker.transition_count(BreakerState::kOpen, BreakerState::kHalfOpen), 6u);
  EXPECT_EQ(breaker.open_count(BreakerCause::kProbeFault), 6u);
}

TEST(Breaker, TakesEveryCountThatAPolicyFileMaySay) {
  const auto parse = [](uint32_t probes, uint32_t successes) {
    return config::Parse("version: v1\npools:\n  - name: main\n    backends: [\"10.0.0.1:80\"]\n"
                         "    circuit_breaker: {half_open_requests: " + std::to_string(probes) +
                             ", half_open_successes: " + std::to_string(successes) + "}\n",
                         "policy.yaml", {});
  };
  const auto most = parse(Breaker::kProbesMax, Breaker::kSuccessesMax);
  ASSERT_TRUE(most.ok()) << most.Messages();
  const BreakerSettings settings(most.config->pools[0].circuit_breaker);
  EXPECT_EQ(settings.probes, Breaker::kProbesMax);
  EXPECT_EQ(settings.successes, Breaker::kSuccessesMax);
  EXPECT_FALSE(parse(Breaker::kProbesMax + 1, 1).ok());
  EXPECT_FALSE(parse(1, Breaker::kSuccessesMax + 1).ok());
}

TEST(Breaker, DoesNothingWhenSwitchedOff) {
  config::CircuitBreaker off;
  off.enabled = false;
  const BreakerSettings settings(off);
  Breaker breaker;
  for (int i = 0; i < 50; ++i) {
    EXPECT_FALSE(breaker.Fault(settings, 0, kStart, 0).has_value());
    EXPECT_TRUE(breaker.Enter(settings, kStart).admitted);
  }
}

// A backend that is well or ill for random spans, and requests that take random
// times and outlive periods. After every step:
//  - no more probes than allowed are under way, by the breaker's count and by ours
//  - an open breaker admits nothing before its time
//  - transitions follow the diagram and form one chain
//  - the breaker is closed again soon after the backend is well for good
class Simulation {
 public:
  explicit Simulation(uint64_t seed) : random_(seed), settings_(Settings(random_)) {}

  void Run() {
    for (int step = 0; step < 4000 && !testing::Test::HasFailure(); ++step) {
      now_ += random_.Below(200) * kMillisecond;
      if (random_.Below(100) == 0) ill_ = !ill_;
      if (random_.Below(500) == 0) Operate();
      random_.Below(2) == 0 ? Send() : Finish();
      if (random_.Below(5) == 0) breaker_.Tick(now_);
      Check();
    }
    Recover();
  }

 private:
  struct Request {
    uint8_t probe;
    uint64_t period;  // Which half-open period it is a probe of, by our count.
  };

  static BreakerSettings Settings(Random& random) {
    config::CircuitBreaker settings;
    settings.consecutive_failures = 1 + random.Below(8);
    settings.half_open_requests = 1 + random.Below(4);
    settings.half_open_successes = 1 + random.Below(5);
    settings.open_max = absl::Seconds(1 + random.Below(30));
    return BreakerSettings(settings);
  }

  void Send() {
    const Breaker::View before = breaker_.view();
    const Breaker::Pass pass = breaker_.Enter(settings_, now_);
    if (before.force == BreakerForce::kAuto && before.state == BreakerState::kOpen) {
      EXPECT_EQ(pass.admitted, now_ >= before.until);
    }
    if (pass.admitted) requests_.push_back({pass.probe, Periods()});
  }

  void Finish() {
    if (requests_.empty()) return;
    const size_t index = random_.Below(static_cast<uint32_t>(requests_.size()));
    const Request request = requests_[index];
    requests_.erase(requests_.begin() + static_cast<ptrdiff_t>(index));
    const uint32_t dice = random_.Below(10);
    if (dice == 0) return breaker_.Neutral(request.probe);
    if (!ill_ || dice == 1) return breaker_.Success(settings_, request.probe, now_);
    const uint64_t word = random_.Next();
    if (const auto cause = breaker_.Fault(settings_, request.probe, now_, word)) {
      EXPECT_EQ(request.probe, 0);
      random_.Below(4) == 0 ? breaker_.Spare()
                            : static_cast<void>(breaker_.Open(settings_, *cause, now_, word));
    }
  }

  void Operate() {
    const BreakerForce forces[] = {BreakerForce::kAuto, BreakerForce::kOpen, BreakerForce::kClosed};
    breaker_.Force(forces[random_.Below(3)], now_);
  }

  uint64_t Periods() const {
    return breaker_.transition_count(BreakerState::kOpen, BreakerState::kHalfOpen);
  }

  void Check() {
    const Breaker::View view = breaker_.view();
    EXPECT_LE(view.probes, settings_.probes);
    if (view.state == BreakerState::kHalfOpen) {
      uint32_t probes = 0;
      for (const Request& request : requests_) {
        if (request.probe != 0 && request.period == Periods()) ++probes;
      }
      EXPECT_EQ(view.probes, probes) << "a probe was lost or counted twice";
      EXPECT_LT(view.successes, settings_.successes);
    }
    const auto transitions = breaker_.transitions();
    for (size_t i = 1; i < transitions.size(); ++i) {
      EXPECT_EQ(transitions[i].from, transitions[i - 1].to);
      EXPECT_GE(transitions[i].at, transitions[i - 1].at);
    }
    if (!transitions.empty()) {
      EXPECT_EQ(transitions.back().to, view.state);
    }
    EXPECT_EQ(breaker_.transition_count(BreakerState::kClosed, BreakerState::kHalfOpen), 0u);
  }

  void Recover() {
    ill_ = false;
    breaker_.Force(breaker_.view().force == BreakerForce::kAuto ? BreakerForce::kAuto
                                                                : BreakerForce::kOpen, now_);
    if (breaker_.view().force != BreakerForce::kAuto) breaker_.Force(BreakerForce::kAuto, now_);
    requests_.clear();
    for (int i = 0; i < 400 && breaker_.view().state != BreakerState::kClosed; ++i) {
      now_ += 200 * kMillisecond;
      const auto pass = breaker_.Enter(settings_, now_);
      if (pass.admitted) breaker_.Success(settings_, pass.probe, now_);
    }
    EXPECT_EQ(breaker_.view().state, BreakerState::kClosed);
  }

  Random random_;
  const BreakerSettings settings_;
  Breaker breaker_;
  MonoTime now_ = kStart;
  bool ill_ = false;
  std::deque<Request> requests_;
};

TEST(BreakerSim, KeepsItsPromisesThroughThreeHundredLives) {
  ForEachSeed(300, [](uint64_t seed) { Simulation(seed).Run(); });
}

TEST(BreakerThreads, ManyWorkersNeverExceedTheProbes) {
  config::CircuitBreaker two;
  two.half_open_requests = 2;
  two.half_open_successes = 60;
  const BreakerSettings settings(two);
  Breaker breaker;
  breaker.Open(settings, BreakerCause::kRate, kStart, 0);
  std::atomic<int> under_way{0};
  std::atomic<int> most{0};
  std::vector<std::thread> workers;
  for (int i = 0; i < 4; ++i) {
    workers.emplace_back([&] {
      for (int turn = 0; turn < 5000; ++turn) {
        const auto pass = breaker.Enter(settings, kStart + 10 * kSecond);
        if (!pass.admitted) continue;
        const int now = under_way.fetch_add(1) + 1;
        int seen = most.load();
        while (now > seen && !most.compare_exchange_weak(seen, now)) {
        }
        under_way.fetch_sub(1);
        breaker.Neutral(pass.probe);
      }
    });
  }
  for (auto& worker : workers) worker.join();
  EXPECT_LE(most.load(), 2);
  EXPECT_EQ(breaker.view().probes, 0u);
}

}  // namespace
}  // namespace penstock
