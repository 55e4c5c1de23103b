#include "tests/sim/proxy_sim.h"

#include <cstdlib>

#include <gtest/gtest.h>

#include "proxy/base/log.h"
#include "tests/support/seeds.h"

namespace penstock::sim {
namespace {

// Warnings are what a simulation is made of; one seed alone tells them.
void SetQuiet() {
  SetLogLevel(std::getenv("PENSTOCK_SEED") == nullptr ? LogLevel::kOff : LogLevel::kInfo);
}

TEST(ProxySim, AccountsForEveryRequestWhateverHappens) {
  SetQuiet();
  ForEachSeed(100, [](uint64_t seed) { ProxySim(seed).Run(); });
}

TEST(ProxySim, TheSameSeedIsTheSameRun) {
  SetQuiet();
  uint64_t digests[2] = {};
  for (uint64_t& digest : digests) {
    ProxySim sim(7);
    sim.Run();
    digest = sim.digest();
  }
  EXPECT_EQ(digests[0], digests[1]);
}

}  // namespace
}  // namespace penstock::sim
