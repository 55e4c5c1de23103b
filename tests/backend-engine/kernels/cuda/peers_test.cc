// Sums over ranks that go straight on to the norm, on the emulated GPU, each rank a
// thread: the bits of plain additions in rank order, rounded, and then RmsNorm, whatever
// the shape, however often, with the threads of a block in several orders.
#include "backend-engine/kernels/cuda/peers.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <random>
#include <thread>
#include <vector>

#include "backend-engine/kernels/cuda/emulated/machine.h"
#include "backend-engine/kernels/cuda/load_kernels.h"
#include "backend-engine/kernels/kernels.h"

namespace penstock::engine::cuda {
namespace {

struct Shape {
  int32_t tokens, width;
};
// Parts of nobody, parts that split rows and vectors that are more than a block's threads.
constexpr Shape kShapes[] = {{1, 8}, {3, 72}, {2, 1000}, {70, 264}, {1, 8200}, {131, 40}, {1, 8}};
constexpr size_t kNumbersMax = 70 * 264;

struct Rank {
  std::vector<Bf16> branch[2] = {std::vector<Bf16>(kNumbersMax), std::vector<Bf16>(kNumbersMax)};
  std::vector<Bf16> normed;
  std::vector<float> residual;
  alignas(16) uint32_t words[kPeerBlocksMax * kPeersMax] = {};
  uint32_t meetings[kPeerBlocksMax] = {};
};

size_t CountOf(const Shape& shape) {
  return static_cast<size_t>(shape.tokens) * static_cast<size_t>(shape.width);
}

std::vector<Bf16> Numbers(unsigned seed, size_t count) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<Bf16> numbers(count);
  for (Bf16& number : numbers) number = Bf16FromFloat(normal(random));
  return numbers;
}
std::vector<Bf16> Branch(int rank, int turn, const Shape& shape) {
  return Numbers(static_cast<unsigned>(turn * 31 + rank), CountOf(shape));
}

// Of all ranks, in their order, in fp32, rounded once.
std::vector<Bf16> Sum(int size, int turn, const Shape& shape) {
  std::vector<float> sum(CountOf(shape));
  for (int rank = 0; rank < size; ++rank) {
    const auto numbers = Branch(rank, turn, shape);
    for (size_t i = 0; i < sum.size(); ++i) sum[i] += FloatFromBf16(numbers[i]);
  }
  std::vector<Bf16> rounded(sum.size());
  for (size_t i = 0; i < sum.size(); ++i) rounded[i] = Bf16FromFloat(sum[i]);
  return rounded;
}

using Call = GpuError (*)(const PeerGroup&, int buffer, const RmsNormCall&);
GpuError InOneKernel(const PeerGroup& group, int buffer, const RmsNormCall& norm) {
  return PeerSumPartsAndNorm(group, buffer, norm, nullptr);
}
GpuError InHalves(const PeerGroup& group, int buffer, const RmsNormCall& norm) {
  const GpuError error =
      PeerSumParts(group, buffer, int64_t{norm.token_count} * norm.width, nullptr);
  return error != kGpuOk ? error : PeerTakePartsAndNorm(group, buffer, norm, nullptr);
}

PeerGroup GroupOf(std::vector<Rank>& ranks, int rank, int32_t blocks_max, const uint32_t* abort) {
  PeerGroup group{};
  group.rank = rank;
  group.size = static_cast<int32_t>(ranks.size());
  group.blocks_max = blocks_max;
  for (size_t i = 0; i < ranks.size(); ++i) {
    group.of[i] = {{ranks[i].branch[0].data(), ranks[i].branch[1].data()}, nullptr, ranks[i].words,
                   nullptr};
  }
  group.meetings = ranks[static_cast<size_t>(rank)].meetings;
  group.abort = abort;
  return group;
}

template <typename Body>
void RunRanks(int size, const Body& body) {
  std::vector<Rank> ranks(static_cast<size_t>(size));
  std::vector<std::thread> threads;
  for (int rank = 0; rank < size; ++rank) {
    threads.emplace_back([&, rank] { body(ranks, rank); });
  }
  for (std::thread& thread : threads) thread.join();
}

class PeerSums : public ::testing::TestWithParam<unsigned> {
 protected:
  void SetUp() override {
    emulated::SetThreadOrder(GetParam());
    EXPECT_EQ(LoadPeers(), kGpuOk);
  }
  void TearDown() override { emulated::SetThreadOrder(0); }
};

void ExpectBitsOfSumThenNorm(Call call, int size, int32_t blocks_max) {
  const uint32_t abort = 0;
  RunRanks(size, [&](std::vector<Rank>& ranks, int rank) {
    const PeerGroup group = GroupOf(ranks, rank, blocks_max, &abort);
    Rank& own = ranks[static_cast<size_t>(rank)];
    int turn = 0;
    for (const bool starts : {true, false}) {
      for (const Shape& shape : kShapes) {
        const size_t count = CountOf(shape);
        const int buffer = turn % 2;
        const auto mine = Branch(rank, turn, shape);
        std::copy(mine.begin(), mine.end(), own.branch[buffer].begin());
        std::vector<float> weight(static_cast<size_t>(shape.width)), old(count, NAN);
        for (size_t i = 0; i < weight.size(); ++i) weight[i] = 0.5f + static_cast<float>(i % 7);
        if (!starts) {
          for (size_t i = 0; i < count; ++i) old[i] = static_cast<float>(i % 13) - 6.3f;
        }
        own.residual = old;
        own.normed.assign(count, 0x7fc0);  // NaN.
        ASSERT_EQ(call(group, buffer,
                       {nullptr, own.residual.data(), starts, weight.data(), shape.tokens,
                        shape.width, 1e-5f, own.normed.data()}),
                  kGpuOk);
        const auto sum = Sum(size, turn, shape);
        std::vector<float> residual = old;
        std::vector<Bf16> normed(count, 0x7fc0);
        ASSERT_EQ(RmsNorm({sum.data(), residual.data(), starts, weight.data(), shape.tokens,
                           shape.width, 1e-5f, normed.data()},
                          nullptr),
                  kGpuOk);
        // And on, so that the other ranks do not wait for this one for ever.
        EXPECT_TRUE(own.residual == residual) << size << " ranks, turn " << turn;
        EXPECT_TRUE(own.normed == normed) << size << " ranks, turn " << turn;
        ++turn;
      }
    }
  });
}

TEST_P(PeerSums, InOneKernelGiveTheBitsOfASumAndThenANorm) {
  for (const int size : {1, 2, 4, 8}) {
    for (const int32_t blocks : {3, kPeerBlocksMax}) {
      ExpectBitsOfSumThenNorm(InOneKernel, size, blocks);
    }
  }
}

TEST_P(PeerSums, InHalvesGiveTheBitsOfASumAndThenANorm) {
  for (const int size : {1, 2, 4, 8}) {
    for (const int32_t blocks : {3, kPeerBlocksMax}) {
      ExpectBitsOfSumThenNorm(InHalves, size, blocks);
    }
  }
}

// The sum of the others' parts is not written back: each rank's buffer keeps what it held
// but for its own part, which is columns of every row.
TEST_P(PeerSums, AreWrittenNowhereButInARanksOwnPart) {
  const uint32_t abort = 0;
  constexpr int kSize = 4;
  const Shape shape{3, 72};  // 9 vectors: parts of 3, 3, 3 and none.
  RunRanks(kSize, [&](std::vector<Rank>& ranks, int rank) {
    Rank& own = ranks[static_cast<size_t>(rank)];
    auto want = Branch(rank, 5, shape);
    std::copy(want.begin(), want.end(), own.branch[1].begin());
    own.residual.resize(CountOf(shape));
    own.normed.resize(CountOf(shape));
    const std::vector<float> weight(static_cast<size_t>(shape.width), 1.0f);
    ASSERT_EQ(InOneKernel(GroupOf(ranks, rank, 2, &abort), 1,
                          {nullptr, own.residual.data(), true, weight.data(), shape.tokens,
                           shape.width, 1e-5f, own.normed.data()}),
              kGpuOk);
    const auto sum = Sum(kSize, 5, shape);
    for (size_t i = 0; i < want.size(); ++i) {
      if (i % 72 / 24 == static_cast<size_t>(rank)) want[i] = sum[i];
      ASSERT_EQ(own.branch[1][i], want[i]) << "rank " << rank << ", number " << i;
    }
  });
}

TEST_P(PeerSums, ARankThatWaitsInVainGivesUpWhenTheGroupIsAborted) {
  for (const Call call : {InOneKernel, InHalves}) {
    alignas(16) uint32_t abort = 0;
    RunRanks(2, [&](std::vector<Rank>& ranks, int rank) {
      if (rank == 1) {  // And never comes.
        std::atomic_ref(abort).store(1, std::memory_order_release);
        return;
      }
      Rank& own = ranks[0];
      own.residual.resize(16);
      own.normed.resize(16);
      const std::vector<float> weight(8, 1.0f);
      EXPECT_EQ(call(GroupOf(ranks, rank, 2, &abort), 0,
                     {nullptr, own.residual.data(), true, weight.data(), 2, 8, 1e-5f,
                      own.normed.data()}),
                kGpuOk);
    });
  }
}

TEST(PeerSumsThatAreNone, AreRefusedAndOfNothingAreNothing) {
  std::vector<Rank> ranks(2);
  const uint32_t abort = 0;
  const PeerGroup group = GroupOf(ranks, 0, 2, &abort);
  for (const Call call : {InOneKernel, InHalves}) {
    const auto of = [&](int buffer, int32_t tokens, int32_t width) {
      return call(group, buffer, {nullptr, nullptr, true, nullptr, tokens, width, 1e-5f, nullptr});
    };
    EXPECT_EQ(of(0, 0, 8), kGpuOk);  // And waits for nobody.
    EXPECT_EQ(of(2, 1, 8), kGpuInvalid);
    EXPECT_EQ(of(0, 1, 12), kGpuInvalid);
    EXPECT_EQ(of(0, -1, 8), kGpuInvalid);
    EXPECT_EQ(of(0, 1 << 30, 16), kGpuInvalid);
  }
}

// Ascending, descending, shuffled.
INSTANTIATE_TEST_SUITE_P(ThreadOrders, PeerSums, ::testing::Values(0u, 1u, 7u));

}  // namespace
}  // namespace penstock::engine::cuda
