#include "backend-engine/parallel/local_comm.h"

#include <gtest/gtest.h>

#include <functional>
#include <random>
#include <thread>
#include <vector>

namespace penstock::engine {
namespace {

// Runs `body` as every rank of a group, each on a thread of its own.
void RunRanks(int size, const std::function<void(Comm&)>& body) {
  LocalGroup group(size);
  std::vector<std::thread> threads;
  for (int rank = 0; rank < size; ++rank) {
    threads.emplace_back([&group, &body, rank] {
      const std::unique_ptr<Comm> comm = group.MakeComm(rank);
      body(*comm);
    });
  }
  for (std::thread& thread : threads) thread.join();
}

std::vector<float> Numbers(int rank, int64_t count, uint32_t seed) {
  std::mt19937 random(seed * 31 + static_cast<uint32_t>(rank));
  std::normal_distribution<float> normal(0.0f, 1e3f);
  std::vector<float> numbers(static_cast<size_t>(count));
  for (float& number : numbers) number = normal(random);
  return numbers;
}

TEST(LocalComm, SumsInRankOrderToTheSameBitsOnEveryRank) {
  for (const int size : {1, 2, 3, 4}) {
    // Small sums use slots and large ones do not; calls of both kinds alternate.
    RunRanks(size, [size](Comm& comm) {
      uint32_t seed = 0;
      for (const int64_t count : {1, 7, 4096, 4097, 20000, 3, 5000, 256, 256, 256}) {
        std::vector<float> values = Numbers(comm.rank(), count, ++seed);
        std::vector<float> want = Numbers(0, count, seed);
        for (int rank = 1; rank < size; ++rank) {
          const std::vector<float> other = Numbers(rank, count, seed);
          for (size_t i = 0; i < want.size(); ++i) want[i] += other[i];
        }
        ASSERT_TRUE(comm.AllReduceSum(values.data(), count));
        ASSERT_EQ(values, want) << "rank " << comm.rank() << ", count " << count;
      }
    });
  }
}

TEST(LocalComm, ManySmallSumsInARowNeverMix) {
  RunRanks(4, [](Comm& comm) {
    for (int turn = 0; turn < 2000; ++turn) {
      float values[3] = {static_cast<float>(turn), static_cast<float>(comm.rank()), 1.0f};
      ASSERT_TRUE(comm.AllReduceSum(values, 3));
      ASSERT_EQ(values[0], 4.0f * static_cast<float>(turn));
      ASSERT_EQ(values[1], 6.0f);
      ASSERT_EQ(values[2], 4.0f);
    }
  });
}

TEST(LocalComm, GathersInRankOrderAndOnlyWhereAsked) {
  RunRanks(3, [](Comm& comm) {
    const std::vector<float> mine = Numbers(comm.rank(), 5, 1);
    std::vector<float> all(15, -1.0f);
    ASSERT_TRUE(comm.AllGather(mine.data(), 5, comm.rank() == 1 ? nullptr : all.data()));
    if (comm.rank() == 1) return;
    for (int rank = 0; rank < 3; ++rank) {
      const std::vector<float> want = Numbers(rank, 5, 1);
      EXPECT_TRUE(std::equal(want.begin(), want.end(), all.begin() + rank * 5));
    }
  });
}

TEST(LocalComm, BroadcastsTheRootsNumbers) {
  RunRanks(3, [](Comm& comm) {
    for (int root = 0; root < 3; ++root) {
      std::vector<float> values = Numbers(comm.rank(), 9, 2);
      ASSERT_TRUE(comm.Broadcast(values.data(), 9, root));
      EXPECT_EQ(values, Numbers(root, 9, 2));
    }
  });
}

TEST(LocalComm, AbortReleasesRanksThatWaitForAMissingOne) {
  LocalGroup group(3);
  std::vector<std::thread> threads;
  for (int rank = 0; rank < 2; ++rank) {
    threads.emplace_back([&group, rank] {
      const std::unique_ptr<Comm> comm = group.MakeComm(rank);
      std::vector<float> values(10000);
      EXPECT_FALSE(rank == 0 ? comm->Barrier() : comm->AllReduceSum(values.data(), 10000));
      // And it stays so.
      EXPECT_FALSE(comm->Barrier());
      EXPECT_FALSE(comm->AllReduceSum(values.data(), 1));
    });
  }
  group.Abort();
  for (std::thread& thread : threads) thread.join();
}

TEST(LocalComm, AbortAtAnyMomentHangsNobody) {
  for (int seed = 0; seed < 50; ++seed) {
    LocalGroup group(3);
    std::vector<std::thread> threads;
    for (int rank = 0; rank < 3; ++rank) {
      threads.emplace_back([&group, rank, seed] {
        const std::unique_ptr<Comm> comm = group.MakeComm(rank);
        float value = 1;
        for (int turn = 0; comm->AllReduceSum(&value, 1); ++turn) {
          value = 1;
          if (rank == seed % 3 && turn == seed * 3) comm->Abort();
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    EXPECT_TRUE(group.aborted());
  }
}

}  // namespace
}  // namespace penstock::engine
