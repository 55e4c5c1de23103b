// Ranks on the emulated GPU, each a thread: every way of summing gives what plain
// additions in rank order give, the same bits on every rank, however often and in
// whatever sizes; and a rank that waits in vain can be called off.
#include "backend-engine/parallel/gpu_comm.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <thread>

#include "backend-engine/kernels/cuda/emulated/machine.h"
#include "backend-engine/kernels/kernels.h"
#include "backend-engine/parallel/local_comm.h"

namespace penstock::engine {
namespace {

constexpr int32_t kWidth = 72;
constexpr int32_t kTokensMax = 150;

// A rank's memory and its comm.
struct Rank {
  std::vector<uint16_t> branch[2];
  std::vector<float> residual, weight, logits;
  std::vector<uint16_t> normed;
  alignas(16) uint32_t words[cuda::kPeerBlocksMax * cuda::kPeersMax] = {};
  uint32_t meetings[cuda::kPeerBlocksMax] = {};
  cuda::SampledRow sampled[3] = {};

  Rank() {
    for (auto& numbers : branch) numbers.resize(kTokensMax * kWidth);
    residual.resize(kTokensMax * kWidth);
    normed.resize(kTokensMax * kWidth);
    weight.assign(kWidth, 1.0f);
    logits.resize(256);
  }
  cuda::PeerMemory Memory() {
    return {{branch[0].data(), branch[1].data()}, logits.data(), words, sampled};
  }
  cuda::RmsNormCall Norm(int buffer, int32_t tokens) {
    return {branch[buffer].data(), residual.data(), true, weight.data(), tokens, kWidth, 1e-5f,
            normed.data()};
  }
};

std::vector<uint16_t> Numbers(int rank, int turn, int32_t tokens) {
  std::mt19937 random(static_cast<uint32_t>(turn * 31 + rank));
  std::normal_distribution<float> normal;
  std::vector<uint16_t> numbers(static_cast<size_t>(tokens) * kWidth);
  for (uint16_t& number : numbers) number = Bf16FromFloat(normal(random));
  return numbers;
}

// What the residual becomes; two-shot rounds the sum to bf16 on its way.
std::vector<float> Sum(int size, int turn, int32_t tokens, bool rounds) {
  std::vector<float> sum(static_cast<size_t>(tokens) * kWidth);
  for (int rank = 0; rank < size; ++rank) {
    const auto numbers = Numbers(rank, turn, tokens);
    for (size_t i = 0; i < sum.size(); ++i) sum[i] += FloatFromBf16(numbers[i]);
  }
  for (float& value : sum) {
    if (rounds) value = FloatFromBf16(Bf16FromFloat(value));
  }
  return sum;
}

// Runs `body` as every rank, each on a thread of its own.
template <typename Body>
void RunRanks(int size, const Body& body) {
  GpuMeeting meeting(size);
  std::string error;
  ASSERT_TRUE(meeting.Start(error)) << error;
  std::vector<Rank> ranks(static_cast<size_t>(size));
  for (int rank = 0; rank < size; ++rank) {
    meeting.Announce(rank, ranks[static_cast<size_t>(rank)].Memory());
  }
  std::vector<std::thread> threads;
  for (int rank = 0; rank < size; ++rank) {
    threads.emplace_back([&, rank] {
      Rank& own = ranks[static_cast<size_t>(rank)];
      GpuComm comm(meeting, rank, own.meetings, {});
      body(comm, own, meeting);
    });
  }
  for (std::thread& thread : threads) thread.join();
}

// Those that wait must leave multiprocessors to whom they wait for.
TEST(PeerBlocks, OfRanksThatShareAGpuTakeHalfOfItAtMost) {
  EXPECT_EQ(cuda::PeerBlocks(132, 1), cuda::kPeerBlocksMax);
  for (const int sms : {4, 108, 132, 148}) {
    for (const int ranks : {2, 4, 8}) {
      const int blocks = cuda::PeerBlocks(sms, ranks);
      EXPECT_GE(blocks, 1);
      EXPECT_LE(blocks, cuda::kPeerBlocksMax);
      if (blocks > 1) {
        EXPECT_LE(blocks * ranks, sms / 2);
      }
    }
  }
}

TEST(GpuComm, EveryRankTakesTheTokensThatRankZeroChose) {
  for (const int size : {1, 2, 4}) {
    RunRanks(size, [](GpuComm& comm, Rank& own, GpuMeeting&) {
      for (int turn = 0; turn < 20; ++turn) {
        if (comm.rank() == 0) {
          for (int i = 0; i < 3; ++i) own.sampled[i].token = i == 2 ? -1 : turn * 10 + i;
        }
        const cuda::TokenPlace places[] = {{4, 1}, {0, 0}, {2, 2}};
        int32_t tokens[5] = {-7, -7, -7, -7, -7};
        ASSERT_EQ(comm.TakeTokens(places, 3, tokens, nullptr), cuda::kGpuOk);
        EXPECT_EQ(tokens[4], turn * 10 + 1);
        EXPECT_EQ(tokens[0], turn * 10);
        EXPECT_EQ(tokens[2], 0);  // That row had no finite logits.
        EXPECT_EQ(tokens[1], -7);
        EXPECT_EQ(tokens[3], -7);
        // Rank 0 chooses again only when all have taken, as a gather sees to it.
        ASSERT_EQ(comm.GatherLogits(4, nullptr, nullptr), cuda::kGpuOk);
      }
    });
  }
}

TEST(GpuComm, SumsInRankOrderToTheSameBitsOnEveryRank) {
  for (const int size : {1, 2, 3, 4}) {
    RunRanks(size, [size](GpuComm& comm, Rank& own, GpuMeeting&) {
      int turn = 0;
      for (const int32_t tokens : {1, 3, 70, 150, 2, 1, 1}) {
        for (const AllReduceWay way : {AllReduceWay::kOneShot, AllReduceWay::kTwoShot}) {
          const int buffer = turn % 2;
          const auto mine = Numbers(comm.rank(), turn, tokens);
          std::copy(mine.begin(), mine.end(), own.branch[buffer].begin());
          ASSERT_EQ(comm.SumAndNormBy(way, buffer, own.Norm(buffer, tokens), nullptr),
                    cuda::kGpuOk);
          const auto want =
              Sum(size, turn, tokens, size > 1 && way == AllReduceWay::kTwoShot);
          for (size_t i = 0; i < want.size(); ++i) {
            ASSERT_EQ(own.residual[i], want[i])
                << size << " ranks, " << NameOf(way) << ", " << tokens << " tokens, number " << i;
          }
          ++turn;
        }
      }
    });
  }
}

TEST(GpuComm, NormsWhatItSummed) {
  RunRanks(2, [](GpuComm& comm, Rank& own, GpuMeeting&) {
    const auto mine = Numbers(comm.rank(), 5, 4);
    std::copy(mine.begin(), mine.end(), own.branch[0].begin());
    ASSERT_EQ(comm.SumAndNorm(0, own.Norm(0, 4), nullptr), cuda::kGpuOk);
    std::vector<float> sum = Sum(2, 5, 4, false), want(sum.size());
    KernelsAt(CpuLevel::kReference)
        ->rms_norm({.residual = sum.data(), .weight = own.weight.data(), .token_count = 4,
                    .width = kWidth, .eps = 1e-5f, .out = want.data()});
    for (size_t i = 0; i < want.size(); ++i) {
      ASSERT_NEAR(FloatFromBf16(own.normed[i]), want[i], std::fabs(want[i]) / 128 + 1e-6);
    }
  });
}

TEST(GpuComm, GathersTheLogitsWhereTheyAreWanted) {
  for (const int size : {2, 4}) {
    RunRanks(size, [size](GpuComm& comm, Rank& own, GpuMeeting&) {
      for (int turn = 0; turn < 3; ++turn) {
        for (size_t i = 0; i < 48; ++i) {
          own.logits[i] = static_cast<float>(1000 * turn + 100 * comm.rank()) + static_cast<float>(i);
        }
        std::vector<float> all(static_cast<size_t>(size) * 48, NAN);
        const bool wants = comm.rank() == 0;
        ASSERT_EQ(comm.GatherLogits(48, wants ? all.data() : nullptr, nullptr), cuda::kGpuOk);
        for (size_t i = 0; wants && i < all.size(); ++i) {
          ASSERT_EQ(all[i], static_cast<float>(1000 * turn + 100 * static_cast<int>(i / 48)) +
                                static_cast<float>(i % 48));
        }
        // As a step would: the logits are written again only after a sum.
        ASSERT_EQ(comm.SumAndNormBy(AllReduceWay::kOneShot, 0, own.Norm(0, 1), nullptr),
                  cuda::kGpuOk);
        ASSERT_EQ(comm.SumAndNormBy(AllReduceWay::kOneShot, 1, own.Norm(1, 1), nullptr),
                  cuda::kGpuOk);
      }
    });
  }
}

TEST(GpuComm, ARankThatWaitsInVainGivesUpWhenTheGroupIsAborted) {
  RunRanks(2, [](GpuComm& comm, Rank& own, GpuMeeting& meeting) {
    if (comm.rank() == 1) return meeting.Abort();  // And never comes.
    EXPECT_EQ(comm.SumAndNorm(0, own.Norm(0, 2), nullptr), cuda::kGpuOk);
    EXPECT_TRUE(meeting.aborted());
  });
}

TEST(GpuComm, MoreRanksThanAMachineHoldsAreRefused) {
  GpuMeeting meeting(9);
  std::string error;
  EXPECT_FALSE(meeting.Start(error));
  EXPECT_EQ(error, "tensor parallel 9: at most 8 GPU ranks of one machine");
}

}  // namespace
}  // namespace penstock::engine
