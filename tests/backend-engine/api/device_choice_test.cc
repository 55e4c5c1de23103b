#include "backend-engine/api/device_choice.h"

#include <gtest/gtest.h>

namespace penstock::engine {
namespace {

const GpuDevice kTwoGpus{.gpus = 2, .name = "NVIDIA H200", .why_not = ""};
const GpuDevice kNone{.gpus = 0, .name = "", .why_not = "no GPU can be used (there is none)"};

DeviceChoice Choose(const ServeOptions& options, const GpuDevice& gpu) {
  const auto choice = ChooseDevice(options, gpu);
  EXPECT_TRUE(choice.ok()) << choice.status();
  return choice.value_or(DeviceChoice());
}

TEST(DeviceChoice, AutoTakesTheGpuWhereThereIsOneAndSaysWhich) {
  const DeviceChoice choice = Choose({.tensor_parallel = 2}, kTwoGpus);
  EXPECT_EQ(choice.name, "cuda");
  EXPECT_EQ(choice.note, "device cuda (auto: NVIDIA H200)");
  EXPECT_TRUE(choice.may_be_cpu);
}

TEST(DeviceChoice, AutoTakesTheCpuOtherwiseAndSaysWhy) {
  EXPECT_EQ(Choose({}, kNone).note, "device cpu (auto: no GPU can be used (there is none))");
  EXPECT_EQ(Choose({.tensor_parallel = 4}, kTwoGpus).note,
            "device cpu (auto: --tensor-parallel 4 needs as many GPUs, and there are 2)");
  EXPECT_EQ(Choose({.dtype = "float32"}, kTwoGpus).name, "cpu");
  EXPECT_EQ(CpuAfterAll("head_dim is 80").note, "device cpu (auto: head_dim is 80)");
}

TEST(DeviceChoice, WhatWasAskedForByNameIsTakenOrRefused) {
  EXPECT_EQ(Choose({.device = "cpu"}, kTwoGpus).name, "cpu");
  EXPECT_EQ(Choose({.device = "emulated"}, kNone).name, "emulated");
  const DeviceChoice cuda = Choose({.device = "cuda"}, kTwoGpus);
  EXPECT_EQ(cuda.note, "device cuda (NVIDIA H200)");
  EXPECT_FALSE(cuda.may_be_cpu);
  EXPECT_EQ(ChooseDevice({.device = "cuda"}, kNone).status().message(),
            "--device cuda: no GPU can be used (there is none); take --device cpu or auto");
}

TEST(DeviceChoice, ProcessesThatComputeTogetherNeedTheirGpusAndTakeNoCpuInstead) {
  const ServeOptions four{.tensor_parallel = 4, .nnodes = 2};
  EXPECT_EQ(Choose(four, kTwoGpus).name, "cuda");
  EXPECT_FALSE(Choose(four, kTwoGpus).may_be_cpu);
  EXPECT_EQ(ChooseDevice(four, kNone).status().message(),
            "--nnodes 2: no GPU can be used (there is none)");
  EXPECT_EQ(ChooseDevice({.tensor_parallel = 8, .nnodes = 2}, kTwoGpus).status().message(),
            "--nnodes 2: --tensor-parallel 8 of --nnodes 2 needs 4 GPUs, and there are 2");
}

TEST(DeviceChoice, ABuildWithoutCudaSaysSo) {
  const GpuDevice found = FindGpuDevice();
  EXPECT_EQ(found.gpus == 0, !found.why_not.empty());
}

}  // namespace
}  // namespace penstock::engine
