#include "backend-engine/sched/admission.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <memory>
#include <queue>
#include <vector>

#include "tests/backend-engine/sched/driver.h"

namespace penstock::engine {
namespace {

constexpr AdmissionOptions kRoomy = {.queue_max = 8, .block_tokens = 16, .block_count = 1000};

TEST(Admission, RefusesWhatThePoolCouldNeverHoldEvenAlone) {
  // 1,000 and 24 tokens are within the model's length, not within 63 blocks.
  Admission small({.max_length = 1024, .block_tokens = 16, .block_count = 63});
  const SubmitResult refused = small.Offer(MakeRequest(1000, 24), 0);
  EXPECT_EQ(refused.code, SubmitCode::kTooLong);
  EXPECT_EQ(refused.message,
            "the prompt has 1000 tokens and max_tokens is 24, together 1024; the KV cache holds "
            "1009");
  EXPECT_EQ(small.Offer(MakeRequest(1000, 9), 0).code, SubmitCode::kOk);
}

TEST(Admission, RefusesWhatIsLongerThanTheModelAllows) {
  Admission admission({.max_length = 100, .block_tokens = 16, .block_count = 63});
  EXPECT_EQ(admission.Offer(MakeRequest(90, 10), 0).code, SubmitCode::kOk);
  EXPECT_EQ(admission.Offer(MakeRequest(90, 11), 0).code, SubmitCode::kTooLong);
  const auto most = std::numeric_limits<int32_t>::max();
  EXPECT_EQ(admission.Offer(MakeRequest(90, most), 0).code, SubmitCode::kTooLong);
}

TEST(Admission, NamesWhatIsWrongWithARequest) {
  Admission admission({.block_tokens = 16, .block_count = 63, .vocab_size = 1001});
  EXPECT_EQ(admission.Offer(MakeRequest(0, 1), 0).message, "the prompt is empty; at least 1 token");
  EXPECT_EQ(admission.Offer(MakeRequest(1, 0), 0).message, "max_tokens is 0; at least 1");
  EXPECT_EQ(admission.Offer(MakeRequest(2, 1), 0).message,
            "the prompt holds token 1001; tokens are 0 to 1000");
  EXPECT_EQ(admission.queued(), 0);
}

TEST(Admission, RefusesAMaskThatAllowsNoTokenOfTheModel) {
  Admission admission({.block_tokens = 16, .block_count = 63, .vocab_size = 70});
  const auto offer = [&](std::vector<uint32_t> words) {
    GenerateRequest request{.prompt = {1, 2}, .max_tokens = 1};
    request.sampling.allowed = std::make_shared<const std::vector<uint32_t>>(std::move(words));
    return admission.Offer(request, 0);
  };
  for (const auto& nothing : std::vector<std::vector<uint32_t>>{
           {}, {0, 0, 0}, {0, 0, 1u << 6}, {0, 0, 0, ~0u}}) {
    const SubmitResult refused = offer(nothing);
    EXPECT_EQ(refused.code, SubmitCode::kInvalid);
    EXPECT_EQ(refused.message,
              "the mask of allowed tokens allows none of the model's 70 tokens; at least 1");
  }
  EXPECT_EQ(offer({0, 0, 1u << 5}).code, SubmitCode::kOk);
  EXPECT_EQ(offer({1}).code, SubmitCode::kOk);
}

TEST(Admission, BoundsTheQueueInRequests) {
  Admission admission({.queue_max = 2, .block_tokens = 16, .block_count = 63});
  EXPECT_EQ(admission.Offer(MakeRequest(5, 5), 0).code, SubmitCode::kOk);
  EXPECT_EQ(admission.Offer(MakeRequest(5, 5), 0).code, SubmitCode::kOk);
  const SubmitResult full = admission.Offer(MakeRequest(5, 5), 0);
  EXPECT_EQ(full.code, SubmitCode::kQueueFull);
  EXPECT_EQ(full.message, "2 requests wait; queue_max is 2");
  admission.OnLeft(1, 5, 1);
  EXPECT_EQ(admission.Offer(MakeRequest(5, 5), 1).code, SubmitCode::kOk);
}

TEST(Admission, TakesAGroupWholeOrNotAtAll) {
  Admission admission({.queue_max = 4, .block_tokens = 16, .block_count = 63});
  const std::vector<GenerateRequest> three(3, MakeRequest(5, 5));
  EXPECT_EQ(admission.Offer(three, 0).code, SubmitCode::kOk);
  EXPECT_EQ(admission.queued(), 3);
  EXPECT_EQ(admission.queued_tokens(), 15);
  const SubmitResult full = admission.Offer(three, 0);
  EXPECT_EQ(full.code, SubmitCode::kQueueFull);
  EXPECT_EQ(full.message, "3 requests wait and this one brings 3; queue_max is 4");
  EXPECT_EQ(admission.queued(), 3);
  std::vector<GenerateRequest> one_bad = {MakeRequest(5, 5), MakeRequest(0, 5)};
  EXPECT_EQ(admission.Offer(one_bad, 0).code, SubmitCode::kInvalid);
  EXPECT_EQ(admission.queued(), 3);
}

TEST(Admission, NeverAsksAGroupToComeBackThatNoEmptyQueueCouldTake) {
  Admission admission({.queue_max = 2, .block_tokens = 16, .block_count = 63});
  const SubmitResult refused = admission.Offer(std::vector<GenerateRequest>(3, MakeRequest(5, 5)), 0);
  EXPECT_EQ(refused.code, SubmitCode::kTooMany);
  EXPECT_EQ(refused.message,
            "the request asks for 3 answers at once; allowed here: up to 2 (queue_max)");
}

TEST(Admission, AnEmptyQueueTakesAGroupAboveItsTokenLimit) {
  // One by one, the second would be told to come back for ever.
  Admission admission(
      {.queue_max = 9, .queue_tokens_max = 100, .block_tokens = 16, .block_count = 63});
  EXPECT_EQ(admission.Offer(std::vector<GenerateRequest>(3, MakeRequest(60, 5)), 0).code,
            SubmitCode::kOk);
}

TEST(Admission, BoundsTheQueueInTokens) {
  Admission admission(
      {.queue_max = 9, .queue_tokens_max = 100, .block_tokens = 16, .block_count = 63});
  EXPECT_EQ(admission.Offer(MakeRequest(60, 5), 0).code, SubmitCode::kOk);
  EXPECT_EQ(admission.Offer(MakeRequest(40, 5), 0).code, SubmitCode::kOk);
  EXPECT_EQ(admission.Offer(MakeRequest(1, 5), 0).code, SubmitCode::kQueueFull);
}

TEST(Admission, AnEmptyQueueTakesAPromptAboveItsTokenLimit) {
  // Otherwise such a prompt would be told to come back for ever.
  Admission admission(
      {.queue_max = 9, .queue_tokens_max = 100, .block_tokens = 16, .block_count = 63});
  EXPECT_EQ(admission.Offer(MakeRequest(600, 5), 0).code, SubmitCode::kOk);
}

// A queue kept full while `rate` requests leave it each second.
void KeepBusy(Admission& admission, double rate, double from, double seconds) {
  const int departures = static_cast<int>(seconds * rate);
  for (int i = 0; i < departures; ++i) {
    while (admission.queued() < kRoomy.queue_max) {
      ASSERT_EQ(admission.Offer(MakeRequest(5, 5), from + i / rate).code, SubmitCode::kOk);
    }
    admission.OnLeft(1, 5, from + (i + 1) / rate);
  }
  while (admission.queued() < kRoomy.queue_max) {
    ASSERT_EQ(admission.Offer(MakeRequest(5, 5), from + seconds).code, SubmitCode::kOk);
  }
}

TEST(Admission, AsksToComeBackWhenAPlaceIsExpectedToBeFree) {
  for (const double rate : {0.5, 5.0, 50.0}) {
    Admission admission(kRoomy);
    KeepBusy(admission, rate, 0, 100);
    const SubmitResult full = admission.Offer(MakeRequest(5, 5), 100);
    ASSERT_EQ(full.code, SubmitCode::kQueueFull);
    EXPECT_NEAR(full.retry_after_seconds, 1 / rate, 0.2 / rate);
  }
}

TEST(Admission, FollowsADrainRateThatChanges) {
  Admission admission(kRoomy);
  KeepBusy(admission, 100, 0, 10);
  KeepBusy(admission, 2, 10, 100);
  EXPECT_NEAR(admission.Offer(MakeRequest(5, 5), 110).retry_after_seconds, 0.5, 0.1);
}

TEST(Admission, GivesEachClientThatItTurnsAwayTheNextPlaceInTime) {
  Admission admission(kRoomy);
  KeepBusy(admission, 10, 0, 100);
  double last = 0;
  for (int i = 0; i < 20; ++i) {
    const double wait = admission.Offer(MakeRequest(5, 5), 100).retry_after_seconds;
    EXPECT_NEAR(wait - last, 0.1, 0.02);
    last = wait;
  }
}

TEST(Admission, AQueueThatStandsStillAsksForLongerAndLonger) {
  Admission admission(kRoomy);
  KeepBusy(admission, 10, 0, 10);
  const double soon = admission.Offer(MakeRequest(5, 5), 10).retry_after_seconds;
  const double later = admission.Offer(MakeRequest(5, 5), 100).retry_after_seconds;
  EXPECT_GT(later, 5 * soon);
  const double much_later = admission.Offer(MakeRequest(5, 5), 1e6).retry_after_seconds;
  EXPECT_LE(much_later, Admission::kRetryAfterMax);
}

TEST(Admission, AnEmptyQueueForgetsWhomItTurnedAway) {
  Admission admission(kRoomy);
  KeepBusy(admission, 10, 0, 10);
  double last = 0;
  for (int i = 0; i < 1000; ++i) last = admission.Offer(MakeRequest(5, 5), 10).retry_after_seconds;
  EXPECT_EQ(last, Admission::kRetryAfterMax);
  admission.OnLeft(admission.queued(), admission.queued_tokens(), 11);
  KeepBusy(admission, 10, 11, 10);
  EXPECT_NEAR(admission.Offer(MakeRequest(5, 5), 21).retry_after_seconds, 0.1, 0.05);
}

TEST(Admission, ClientsThatComeBackWhenToldGetIn) {
  Admission admission(kRoomy);
  KeepBusy(admission, 10, 0, 20);
  std::priority_queue<double, std::vector<double>, std::greater<>> returns;
  double drained = 20;
  int refused_twice = 0;
  for (int i = 0; i < 100; ++i) {
    returns.push(20 + admission.Offer(MakeRequest(5, 5), 20).retry_after_seconds);
  }
  for (; !returns.empty(); returns.pop()) {
    for (; drained + 0.1 <= returns.top(); drained += 0.1) {
      if (admission.queued() > 0) admission.OnLeft(1, 5, drained + 0.1);
    }
    if (admission.Offer(MakeRequest(5, 5), returns.top()).code != SubmitCode::kOk) ++refused_twice;
  }
  EXPECT_LE(refused_twice, 5);
}

}  // namespace
}  // namespace penstock::engine
