#include "backend-engine/parallel/last_call.h"

#include <gtest/gtest.h>

#include <atomic>
#include <future>

namespace penstock::engine {
namespace {

TEST(LastCall, WhoeverBeginsItDoesNotWaitForIt) {
  std::promise<void> may_end;
  std::atomic<int> calls{0};
  LastCall call([&] {
    ++calls;
    may_end.get_future().wait();
  });
  EXPECT_FALSE(call.Done(0));
  call.Begin();
  call.Begin();
  EXPECT_FALSE(call.Done(0.01));
  may_end.set_value();
  call.Wait();
  EXPECT_TRUE(call.Done(0));
  call.Begin();
  EXPECT_EQ(calls, 1);
}

TEST(LastCall, ThatNobodyAskedForIsNotMade) {
  std::atomic<int> calls{0};
  { const LastCall call([&] { ++calls; }); }
  EXPECT_EQ(calls, 0);
}

TEST(LastCall, ThatWasAskedForIsMadeBeforeItsOwnerGoes) {
  std::atomic<int> calls{0};
  {
    LastCall call([&] { ++calls; });
    call.Begin();
  }
  EXPECT_EQ(calls, 1);
}

}  // namespace
}  // namespace penstock::engine
