#include "proxy/http/h2_memory.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <thread>
#include <vector>

namespace penstock {
namespace {

// Where a sanitizer is at work there is nothing of ours to look at.
class H2MemoryTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (memory_ == nullptr) GTEST_SKIP() << "blocks are the sanitizer's";
  }
  void* Take(size_t size) { return memory_->malloc(size, nullptr); }
  void Give(void* block) { memory_->free(block, nullptr); }

  nghttp2_mem* const memory_ = H2Memory();
};

TEST_F(H2MemoryTest, ABlockThatCameBackIsGivenAgain) {
  void* const block = Take(100);
  Give(block);
  EXPECT_EQ(Take(128), block);
  EXPECT_NE(Take(128), block);
}

TEST_F(H2MemoryTest, BlocksOfAllSizesHoldWhatIsPutThereSideBySide) {
  std::vector<std::pair<unsigned char*, size_t>> blocks;
  for (int round = 0; round < 3; ++round) {
    for (size_t size = 0; size < 3000; size += 7) {
      auto* const block = static_cast<unsigned char*>(Take(size));
      ASSERT_NE(block, nullptr);
      EXPECT_EQ(reinterpret_cast<uintptr_t>(block) % alignof(std::max_align_t), 0u);
      std::memset(block, static_cast<int>(size % 251), size);
      blocks.emplace_back(block, size);
    }
    for (const auto& [block, size] : blocks) {
      for (size_t i = 0; i < size; ++i) ASSERT_EQ(block[i], size % 251);
      Give(block);
    }
    blocks.clear();
  }
  Give(nullptr);
}

TEST_F(H2MemoryTest, AResizedBlockKeepsItsBytesAndAZeroedOneHasNone) {
  auto* block = static_cast<char*>(memory_->realloc(nullptr, 10, nullptr));
  std::memcpy(block, "ten bytes", 10);
  for (const size_t size : {20u, 64u, 65u, 500u, 5000u, 50'000u}) {
    block = static_cast<char*>(memory_->realloc(block, size, nullptr));
    ASSERT_NE(block, nullptr);
    EXPECT_STREQ(block, "ten bytes");
    std::memset(block + 10, 'x', size - 10);
  }
  Give(block);
  for (const size_t size : {1u, 64u, 1000u, 5000u}) {
    void* const dirty = Take(size);
    std::memset(dirty, 'x', size);
    Give(dirty);
    auto* const zeroed = static_cast<char*>(memory_->calloc(size, 1, nullptr));
    for (size_t i = 0; i < size; ++i) ASSERT_EQ(zeroed[i], 0);
    Give(zeroed);
  }
}

TEST_F(H2MemoryTest, WhatCannotBeIsRefused) {
  EXPECT_EQ(memory_->calloc(SIZE_MAX / 2, 3, nullptr), nullptr);
  EXPECT_EQ(Take(SIZE_MAX - 1), nullptr);
}

TEST_F(H2MemoryTest, ABlockMayComeBackOnAnotherThread) {
  std::vector<void*> blocks;
  for (int i = 0; i < 1000; ++i) blocks.push_back(Take(200));
  std::thread([&] {
    for (void* const block : blocks) Give(block);
    Give(Take(200));
  }).join();
}

}  // namespace
}  // namespace penstock
