#include "proxy/backends/health.h"

#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "proxy/backends/control.h"
#include "proxy/backends/pool_table.h"
#include "tests/proxy/backends/fake_engine.h"
#include "tests/proxy/backends/worlds.h"
#include "tests/support/manual_loop.h"
#include "tests/support/seeds.h"

namespace penstock {
namespace {

// The health after each of a row of results: p passed, f failed, t timed out, r refused.
std::string After(Health health, std::string_view results) {
  HealthCount count{config::HealthCheck{}};
  std::string healths;
  for (const char result : results) {
    health = count.After(health, result == 'p'   ? CheckResult::kPassed
                                 : result == 'f' ? CheckResult::kFailed
                                 : result == 't' ? CheckResult::kTimedOut
                                                 : CheckResult::kRefused);
    healths += Name(health)[0];
  }
  return healths;
}

TEST(HealthCount, TheFirstCheckDecidesAboutAnUnknownBackend) {
  EXPECT_EQ(After(Health::kUnknown, "p"), "h");
  EXPECT_EQ(After(Health::kUnknown, "f"), "u");
  EXPECT_EQ(After(Health::kUnknown, "r"), "d");
}

TEST(HealthCount, ThreeFailuresInARowMakeUnhealthy) {
  EXPECT_EQ(After(Health::kHealthy, "ftf"), "hhu");
  EXPECT_EQ(After(Health::kHealthy, "ffpffp"), "hhhhhh");
}

TEST(HealthCount, OneRefusedConnectionIsProof) {
  EXPECT_EQ(After(Health::kHealthy, "r"), "d");
  EXPECT_EQ(After(Health::kUnhealthy, "r"), "d");
}

TEST(HealthCount, TwoPassesInARowMakeHealthyAgain) {
  EXPECT_EQ(After(Health::kUnhealthy, "pfpp"), "uuuh");
  EXPECT_EQ(After(Health::kDown, "pp"), "dh");
}

TEST(HealthCount, SomethingThatListensButFailsIsNoLongerDown) {
  EXPECT_EQ(After(Health::kDown, "t"), "u");
}

TEST(HealthCount, AsksForTheNextResultSoonWhileAChangeIsUnderWay) {
  HealthCount count{config::HealthCheck{}};
  count.After(Health::kHealthy, CheckResult::kPassed);
  EXPECT_FALSE(count.counting());
  count.After(Health::kHealthy, CheckResult::kTimedOut);
  EXPECT_TRUE(count.counting());
  count.After(Health::kUnhealthy, CheckResult::kPassed);
  EXPECT_TRUE(count.counting());
  count.After(Health::kUnhealthy, CheckResult::kPassed);
  EXPECT_FALSE(count.counting());
}

// Engines are killed, stopped and started again at random. Whatever the order:
//  - a second after a kill, the engine gets nothing new while another one is well
//  - ten seconds after the last change, exactly the engines that are well are used,
//    and their figures come by push
class FleetSim {
 public:
  explicit FleetSim(uint64_t seed)
      : random_(seed), control_loop_(network_), engine_loop_(network_), fleet_(FleetOf({}, kEngines)) {
    for (const auto& backend : fleet_->pools[0]->backends) {
      engines_.push_back({std::make_unique<FakeEngine>(network_, engine_loop_, backend->authority)});
      engines_.back().fake->Start();
    }
    control_ = Control::Create(control_loop_, seed);
    control_->SetFleet(fleet_);
    table_ = std::make_unique<PoolTable>(fleet_->pools[0], 0);
  }

  void Run() {
    for (int round = 0; round < 4 && !testing::Test::HasFailure(); ++round) {
      for (int change = 1 + static_cast<int>(random_.Below(6)); change > 0; --change) {
        ChangeOne();
        Pass(random_.Below(3000) * kMillisecond);
      }
      Pass(10 * kSecond);
      for (size_t i = 0; i < kEngines; ++i) CheckSettled(i);
    }
  }

 private:
  static constexpr size_t kEngines = 3;
  enum class Truth { kWell, kKilled, kStopped };
  struct Engine {
    std::unique_ptr<FakeEngine> fake;
    Truth truth = Truth::kWell;
    MonoTime since = 0;
  };

  void ChangeOne() {
    Engine& engine = engines_[random_.Below(kEngines)];
    engine.since = network_.now();
    if (engine.truth == Truth::kWell) {
      const bool kill = random_.Below(2) == 0;
      engine.truth = kill ? Truth::kKilled : Truth::kStopped;
      kill ? engine.fake->Kill() : engine.fake->Stop(true);
    } else {
      if (engine.truth == Truth::kKilled) engine.fake->Start();
      engine.fake->Stop(false);
      engine.truth = Truth::kWell;
    }
  }

  void Pass(MonoTime time) {
    for (const MonoTime end = network_.now() + time; network_.now() < end;) {
      network_.Advance(std::min(100 * kMillisecond, end - network_.now()));
      bool any_well = false;
      for (Engine& engine : engines_) {
        if (engine.truth == Truth::kWell) engine.fake->Say(1);
        any_well = any_well || (engine.truth == Truth::kWell && Used(engine));
      }
      network_.RunUntilIdle();
      for (Engine& engine : engines_) {
        if (engine.truth == Truth::kKilled && network_.now() - engine.since > kSecond) {
          EXPECT_FALSE(any_well && Used(engine)) << "a killed engine is still used";
        }
      }
    }
  }

  size_t IndexOf(const Engine& engine) const { return static_cast<size_t>(&engine - engines_.data()); }
  bool Used(const Engine& engine) {
    const auto id = fleet_->pools[0]->backends[IndexOf(engine)]->id;
    const auto view = table_->Usable(network_.now(), {});
    return std::ranges::find(view.candidates, id, &lb::Candidate::id) != view.candidates.end();
  }

  void CheckSettled(size_t index) {
    const Engine& engine = engines_[index];
    const bool any_well = std::ranges::find(engines_, Truth::kWell, &Engine::truth) != engines_.end();
    const BackendState& state = fleet_->pools[0]->backends[index]->state;
    SCOPED_TRACE(testing::Message() << "engine " << index << " is " << Name(state.health()));
    if (engine.truth == Truth::kWell) {
      EXPECT_EQ(state.health(), Health::kHealthy);
      EXPECT_TRUE(Used(engine));
      LoadReport report;
      EXPECT_TRUE(state.ReadReport(report));
      EXPECT_EQ(RungAt(report, network_.now(), 1500 * kMillisecond, kPollDefault), lb::Rung::kPush);
    } else {
      EXPECT_EQ(state.health(),
                engine.truth == Truth::kKilled ? Health::kDown : Health::kUnhealthy);
      EXPECT_FALSE(any_well && Healthy() * 2 >= kEngines && Used(engine));
    }
  }
  size_t Healthy() const {
    return static_cast<size_t>(std::ranges::count(engines_, Truth::kWell, &Engine::truth));
  }

  Random random_;
  MemoryNetwork network_;
  ManualLoop control_loop_;
  ManualLoop engine_loop_;
  std::shared_ptr<const Fleet> fleet_;
  std::vector<Engine> engines_;
  std::unique_ptr<Control> control_;
  std::unique_ptr<PoolTable> table_;
};

TEST(FleetSim, WhatIsUsedFollowsWhatIsWell) {
  ForEachSeed(100, [](uint64_t seed) { FleetSim(seed).Run(); });
}

}  // namespace
}  // namespace penstock
