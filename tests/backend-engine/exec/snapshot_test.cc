#include "backend-engine/exec/snapshot.h"

#include <gtest/gtest.h>

#include <thread>

namespace penstock::engine {
namespace {

struct Value {
  uint64_t numbers[20] = {};
  uint8_t last = 0;
};

TEST(Snapshot, GivesWhatWasStoredLast) {
  Snapshot<Value> snapshot;
  EXPECT_EQ(snapshot.Load().last, 0);
  Value value;
  value.numbers[19] = 7;
  value.last = 3;
  snapshot.Store(value);
  EXPECT_EQ(snapshot.Load().numbers[19], 7u);
  EXPECT_EQ(snapshot.Load().last, 3);
}

TEST(Snapshot, NeverShowsHalfAValue) {
  Snapshot<Value> snapshot;
  std::thread writer([&] {
    for (uint64_t round = 1; round <= 20000; ++round) {
      Value value;
      for (uint64_t& number : value.numbers) number = round;
      snapshot.Store(value);
    }
  });
  uint64_t seen = 0;
  while (seen < 20000) {
    const Value value = snapshot.Load();
    for (const uint64_t number : value.numbers) ASSERT_EQ(number, value.numbers[0]);
    ASSERT_GE(value.numbers[0], seen);
    seen = value.numbers[0];
  }
  writer.join();
}

}  // namespace
}  // namespace penstock::engine
