// Ranks on the emulated GPU, each a thread: every way of summing gives what plain
// additions in rank order give, the same bits on every rank, however often and in
// whatever sizes; and a rank that waits in vain can be called off.
#include "backend-engine/parallel/gpu_comm.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
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
constexpr uint16_t kPoison = 0x7fc0;  // NaN.

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

// Runs `body` as every rank of several groups, which stand for processes: no rank sees
// memory of another group's, and NCCL's twin is all that they have in common.
template <typename Body>
void RunProcesses(int processes, int size, const Body& body) {
  std::atomic<bool> stop{false};
  std::string all_id, error;
  std::vector<std::string> ids(static_cast<size_t>(size));
  ASSERT_TRUE(NcclComm::NewId(all_id, error)) << error;
  for (std::string& id : ids) ASSERT_TRUE(NcclComm::NewId(id, error)) << error;
  std::vector<std::thread> threads;
  for (int process = 0; process < processes; ++process) {
    threads.emplace_back([&, process] {
      GpuMeeting meeting(size);
      std::string failed;
      ASSERT_TRUE(meeting.Start(failed)) << failed;
      std::vector<Rank> ranks(static_cast<size_t>(size));
      for (int rank = 0; rank < size; ++rank) {
        meeting.Announce(rank, ranks[static_cast<size_t>(rank)].Memory());
      }
      std::vector<std::thread> own_threads;
      for (int rank = 0; rank < size; ++rank) {
        own_threads.emplace_back([&, rank] {
          cuda::Stream stream = nullptr;
          ASSERT_EQ(cuda::MakeStream(stream), cuda::kGpuOk);
          std::string why;
          const auto all = NcclComm::Create(process * size + rank, processes * size, all_id,
                                            stream, stop, why);
          ASSERT_NE(all, nullptr) << why;
          const auto counterparts = NcclComm::Create(process, processes,
                                                     ids[static_cast<size_t>(rank)], stream, stop, why);
          ASSERT_NE(counterparts, nullptr) << why;
          Rank& own = ranks[static_cast<size_t>(rank)];
          GpuComm comm(meeting, rank, own.meetings, {all.get(), counterparts.get(), processes});
          body(comm, own, process, stream);
          EXPECT_TRUE(all->Healthy(why) && counterparts->Healthy(why)) << why;
          EXPECT_TRUE(all->Barrier());  // Nobody leaves before all have what they sent.
          cuda::DestroyStream(stream);
        });
      }
      for (std::thread& thread : own_threads) thread.join();
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

// With 8 ranks the last ones have no columns of their own: a row has 9 vectors.
TEST(GpuComm, SumsInRankOrderToTheSameBitsOnEveryRank) {
  for (const int size : {1, 2, 3, 4, 8}) {
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

// What RmsNorm makes of the sums, in the place of what stood there, on top of an earlier
// residual too.
void ExpectNormed(const Rank& own, std::vector<float> sum, int32_t tokens) {
  std::vector<float> want(sum.size());
  KernelsAt(CpuLevel::kReference)
      ->rms_norm({.residual = sum.data(), .weight = own.weight.data(), .token_count = tokens,
                  .width = kWidth, .eps = 1e-5f, .out = want.data()});
  for (size_t i = 0; i < want.size(); ++i) {
    ASSERT_EQ(own.residual[i], sum[i]) << i;
    ASSERT_NEAR(FloatFromBf16(own.normed[i]), want[i], std::fabs(want[i]) / 128 + 1e-6) << i;
  }
}

TEST(GpuComm, NormsWhatItSummed) {
  for (const AllReduceWay way : {AllReduceWay::kOneShot, AllReduceWay::kTwoShot}) {
    RunRanks(3, [way](GpuComm& comm, Rank& own, GpuMeeting&) {
      for (const int32_t tokens : {1, 4, 149}) {
        const bool rounds = way == AllReduceWay::kTwoShot;
        std::vector<float> sum = Sum(3, 5, tokens, rounds);
        const std::vector<float> second = Sum(3, 6, tokens, rounds);
        for (const int buffer : {0, 1}) {
          const auto mine = Numbers(comm.rank(), 5 + buffer, tokens);
          std::copy(mine.begin(), mine.end(), own.branch[buffer].begin());
          std::fill(own.normed.begin(), own.normed.end(), kPoison);
          cuda::RmsNormCall norm = own.Norm(buffer, tokens);
          norm.starts = buffer == 0;
          ASSERT_EQ(comm.SumAndNormBy(way, buffer, norm, nullptr), cuda::kGpuOk);
          for (size_t i = 0; buffer == 1 && i < sum.size(); ++i) sum[i] += second[i];
          ExpectNormed(own, sum, tokens);
          EXPECT_TRUE(std::all_of(own.normed.begin() + tokens * kWidth, own.normed.end(),
                                  [](uint16_t number) { return number == kPoison; }));
        }
      }
    });
  }
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

TEST(GpuComm, ProcessesHaveNcclAndByProcessesFirstAndNothingElse) {
  RunProcesses(2, 2, [](GpuComm& comm, Rank& own, int, cuda::Stream) {
    EXPECT_EQ(comm.Ways(),
              (std::vector{AllReduceWay::kNccl, AllReduceWay::kHierarchical}));
    for (const AllReduceWay way : {AllReduceWay::kOneShot, AllReduceWay::kTwoShot}) {
      EXPECT_EQ(comm.SumAndNormBy(way, 0, own.Norm(0, 1), nullptr), cuda::kGpuInvalid);
    }
  });
  RunRanks(2, [](GpuComm& comm, Rank& own, GpuMeeting&) {
    for (const AllReduceWay way : {AllReduceWay::kNccl, AllReduceWay::kHierarchical}) {
      EXPECT_EQ(comm.SumAndNormBy(way, 0, own.Norm(0, 1), nullptr), cuda::kGpuInvalid);
    }
  });
}

// By processes first a sum is rounded once in each process and once over all.
TEST(GpuComm, RanksOfSeveralProcessesSumToTheSameBits) {
  for (const auto& [processes, size] : {std::pair{2, 1}, {2, 2}, {3, 2}, {2, 4}}) {
    RunProcesses(processes, size, [processes = processes, size = size](
                                      GpuComm& comm, Rank& own, int process, cuda::Stream stream) {
      int turn = 0;
      for (const int32_t tokens : {1, 3, 70, 2, 1, 1}) {
        for (const AllReduceWay way : {AllReduceWay::kNccl, AllReduceWay::kHierarchical}) {
          if (size == 1 && way == AllReduceWay::kHierarchical) continue;
          const int buffer = turn % 2;
          const auto mine = Numbers(process * size + comm.rank(), turn, tokens);
          std::copy(mine.begin(), mine.end(), own.branch[buffer].begin());
          ASSERT_EQ(comm.SumAndNormBy(way, buffer, own.Norm(buffer, tokens), stream),
                    cuda::kGpuOk);
          ASSERT_EQ(cuda::Synchronize(stream), cuda::kGpuOk);
          std::vector<float> want(static_cast<size_t>(tokens) * kWidth);
          std::vector<float> part(want.size());
          for (int other = 0; other < processes; ++other) {
            std::fill(part.begin(), part.end(), 0.0f);
            for (int rank = 0; rank < size; ++rank) {
              const auto numbers = Numbers(other * size + rank, turn, tokens);
              auto& to = way == AllReduceWay::kNccl ? want : part;
              for (size_t i = 0; i < to.size(); ++i) to[i] += FloatFromBf16(numbers[i]);
            }
            for (size_t i = 0; i < want.size(); ++i) want[i] += FloatFromBf16(Bf16FromFloat(part[i]));
          }
          for (size_t i = 0; i < want.size(); ++i) {
            ASSERT_EQ(own.residual[i], FloatFromBf16(Bf16FromFloat(want[i])))
                << processes << " times " << size << " ranks, " << NameOf(way) << ", " << tokens
                << " tokens, number " << i;
          }
          ++turn;
        }
      }
    });
  }
}

TEST(GpuComm, LogitsOfAllProcessesComeToRankZero) {
  for (const auto& [processes, size] : {std::pair{2, 1}, {2, 2}, {3, 2}}) {
    RunProcesses(processes, size, [processes = processes, size = size](
                                      GpuComm& comm, Rank& own, int process, cuda::Stream stream) {
      for (int turn = 0; turn < 3; ++turn) {
        const int mine = process * size + comm.rank();
        for (size_t i = 0; i < 48; ++i) {
          own.logits[i] = static_cast<float>(1000 * turn + 100 * mine) + static_cast<float>(i);
        }
        const bool wants = mine == 0;
        std::vector<float> all(static_cast<size_t>(wants ? processes * size : size) * 48, NAN);
        const bool first = comm.rank() == 0 && (wants || size > 1);
        ASSERT_EQ(comm.GatherLogits(48, first ? all.data() : nullptr, stream), cuda::kGpuOk);
        ASSERT_EQ(cuda::Synchronize(stream), cuda::kGpuOk);
        for (size_t i = 0; wants && i < all.size(); ++i) {
          ASSERT_EQ(all[i], static_cast<float>(1000 * turn + 100 * static_cast<int>(i / 48)) +
                                static_cast<float>(i % 48));
        }
        // As a step would: the logits are written again only after a sum.
        for (const int buffer : {0, 1}) {
          ASSERT_EQ(comm.SumAndNormBy(AllReduceWay::kNccl, buffer, own.Norm(buffer, 1), stream),
                    cuda::kGpuOk);
        }
        ASSERT_EQ(cuda::Synchronize(stream), cuda::kGpuOk);
      }
    });
  }
}

TEST(GpuComm, RanksOfOtherProcessesTakeTheTokensThatRankZeroChose) {
  RunProcesses(2, 2, [](GpuComm& comm, Rank& own, int process, cuda::Stream stream) {
    for (int turn = 0; turn < 5; ++turn) {
      for (int i = 0; i < 3; ++i) own.sampled[i].token = process == 0 ? 10 * turn + i : -9;
      ASSERT_EQ(comm.ShareSampled(own.sampled, 2), cuda::kGpuOk);
      const cuda::TokenPlace places[] = {{1, 1}, {0, 0}};
      int32_t tokens[2] = {-7, -7};
      ASSERT_EQ(comm.TakeTokens(places, 2, tokens, stream), cuda::kGpuOk);
      ASSERT_EQ(cuda::Synchronize(stream), cuda::kGpuOk);
      EXPECT_EQ(tokens[0], 10 * turn);
      EXPECT_EQ(tokens[1], 10 * turn + 1);
      if (process == 1) {
        EXPECT_EQ(own.sampled[2].token, -9);  // Only as many as are asked for.
      }
      // Rank 0 chooses again only when all have taken, as a sum sees to it.
      ASSERT_EQ(comm.SumAndNormBy(AllReduceWay::kNccl, turn % 2, own.Norm(turn % 2, 1), stream),
                cuda::kGpuOk);
      ASSERT_EQ(cuda::Synchronize(stream), cuda::kGpuOk);
    }
  });
}

// NCCL's abort waits for all graphs that recorded its calls; who must go on does not.
TEST(NcclComm, AbortReturnsAtOnceAndIsDoneWhenNoGraphHoldsTheCommunicator) {
  std::atomic<bool> stop{false};
  std::string id, error;
  ASSERT_TRUE(NcclComm::NewId(id, error)) << error;
  cuda::Stream stream = nullptr;
  ASSERT_EQ(cuda::MakeStream(stream), cuda::kGpuOk);
  const auto comm = NcclComm::Create(0, 1, id, stream, stop, error);
  ASSERT_NE(comm, nullptr) << error;
  float number = 7;
  ASSERT_EQ(cuda::BeginCapture(stream), cuda::kGpuOk);
  EXPECT_TRUE(comm->AllReduceSum(&number, 1));
  cuda::Graph graph = nullptr;
  ASSERT_EQ(cuda::EndCapture(stream, graph), cuda::kGpuOk);
  comm->Abort();
  EXPECT_FALSE(comm->Gone(0.05));
  EXPECT_FALSE(comm->AllReduceSum(&number, 1));
  EXPECT_FALSE(comm->Healthy(error));
  EXPECT_EQ(error, "aborted");
  cuda::DestroyGraph(graph);
  EXPECT_TRUE(comm->Gone(60));
  cuda::DestroyStream(stream);
}

TEST(PeerPart, PartsAreWhatTheKernelsMakeOfThemAndCoverAll) {
  for (const int64_t count : {0, 8, 16, 72, 72 * 70, 8 * 1001}) {
    for (const int32_t size : {1, 2, 3, 4, 8}) {
      int64_t next = 0;
      for (int32_t rank = 0; rank < size; ++rank) {
        const cuda::PeerPart part = cuda::PartOf(rank, size, count);
        EXPECT_EQ(part.first, next);
        EXPECT_EQ(part.count % 8, 0);
        next += part.count;
      }
      EXPECT_EQ(next, count);
    }
  }
}

TEST(GpuComm, ARankThatWaitsInVainGivesUpWhenTheGroupIsAborted) {
  for (const AllReduceWay way : {AllReduceWay::kOneShot, AllReduceWay::kTwoShot}) {
    RunRanks(2, [way](GpuComm& comm, Rank& own, GpuMeeting& meeting) {
      if (comm.rank() == 1) return meeting.Abort();  // And never comes.
      EXPECT_EQ(comm.SumAndNormBy(way, 0, own.Norm(0, 2), nullptr), cuda::kGpuOk);
      EXPECT_TRUE(meeting.aborted());
    });
  }
}

TEST(GpuComm, MoreRanksThanAMachineHoldsAreRefused) {
  GpuMeeting meeting(9);
  std::string error;
  EXPECT_FALSE(meeting.Start(error));
  EXPECT_EQ(error, "tensor parallel 9: at most 8 GPU ranks of one machine");
}

}  // namespace
}  // namespace penstock::engine
