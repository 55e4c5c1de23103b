#include "backend-engine/exec/nvml.h"

#include <cmath>

#include "backend-engine/exec/nvml_api.h"
#include "tests/backend-engine/exec/nvml_library.h"
// Where a toolkit has NVIDIA's own header, ours is held to it.
#if __has_include(<nvml.h>)
#include <nvml.h>
#define PENSTOCK_NVML_HEADER 1
#endif

namespace penstock::engine {
namespace {

constexpr char kGpu[] = "0000:01:00.0";

TEST(Nvml, TellsEveryFigureOfAGpuInOurUnits) {
  const FakeNvmlLibrary fake;
  std::string why_not;
  const auto nvml = Nvml::Open(fake.path(), why_not);
  ASSERT_NE(nvml, nullptr) << why_not;
  void* gpu = nvml->Find(kGpu, why_not);
  ASSERT_NE(gpu, nullptr) << why_not;
  const GpuFigures figures = nvml->Read(gpu);
  EXPECT_DOUBLE_EQ(figures.utilization, 0.75);
  EXPECT_DOUBLE_EQ(figures.memory_used, 20.0 * (1 << 30));
  EXPECT_DOUBLE_EQ(figures.memory_total, 80.0 * (1 << 30));
  EXPECT_DOUBLE_EQ(figures.temperature, 41);
  EXPECT_DOUBLE_EQ(figures.power, 312.5);
  EXPECT_DOUBLE_EQ(figures.links_active, 1);
  EXPECT_DOUBLE_EQ(figures.links_inactive, 1);
  EXPECT_DOUBLE_EQ(figures.link_bytes_sent, 3000.0 * 1024);
  EXPECT_DOUBLE_EQ(figures.link_bytes_received, 5000.0 * 1024);
}

TEST(Nvml, IsShutDownAsOftenAsItIsStarted) {
  const FakeNvmlLibrary fake;
  std::string why_not;
  {
    const auto nvml = Nvml::Open(fake.path(), why_not);
    EXPECT_EQ(fake->started, 1);
  }
  EXPECT_EQ(fake->started, 0);
  fake->init = 9;
  EXPECT_EQ(Nvml::Open(fake.path(), why_not), nullptr);
  EXPECT_EQ(fake->started, 0);
  EXPECT_NE(why_not.find("does not start: fake error"), std::string::npos) << why_not;
}

TEST(Nvml, ALibraryThatIsNotThereOrNotTheRightOneIsAReason) {
  std::string why_not;
  EXPECT_EQ(Nvml::Open("libno-such-library.so.1", why_not), nullptr);
  EXPECT_NE(why_not.find("libno-such-library.so.1"), std::string::npos) << why_not;
  EXPECT_EQ(Nvml::Open("libc.so.6", why_not), nullptr);
  EXPECT_NE(why_not.find("nvmlInit_v2"), std::string::npos) << why_not;
}

TEST(Nvml, WhatAnOldLibraryLacksIsUnknownAndTheRestIsTold) {
  const FakeNvmlLibrary fake("fake_nvml_old");
  std::string why_not;
  const auto nvml = Nvml::Open(fake.path(), why_not);
  ASSERT_NE(nvml, nullptr) << why_not;
  const GpuFigures figures = nvml->Read(nvml->Find(kGpu, why_not));
  EXPECT_DOUBLE_EQ(figures.utilization, 0.75);
  EXPECT_TRUE(std::isnan(figures.temperature));
  EXPECT_TRUE(std::isnan(figures.power));
  EXPECT_TRUE(std::isnan(figures.links_active));
  EXPECT_TRUE(std::isnan(figures.link_bytes_sent));
  EXPECT_EQ(nvml->Find("0000:99:00.0", why_not), nullptr);
  EXPECT_EQ(why_not, "the GPU at 0000:99:00.0: error 6");
}

TEST(Nvml, ACallThatFailsLeavesItsFigureUnknown) {
  const FakeNvmlLibrary fake;
  std::string why_not;
  const auto nvml = Nvml::Open(fake.path(), why_not);
  ASSERT_NE(nvml, nullptr) << why_not;
  void* gpu = nvml->Find(kGpu, why_not);
  fake->fails = nvml::kNotSupported;
  const GpuFigures none = nvml->Read(gpu);
  for (const double figure :
       {none.utilization, none.memory_used, none.memory_total, none.temperature, none.power,
        none.links_active, none.links_inactive, none.link_bytes_sent, none.link_bytes_received}) {
    EXPECT_TRUE(std::isnan(figure)) << figure;
  }
  fake->fails = 0;
  fake->links = 0;
  const GpuFigures no_links = nvml->Read(gpu);
  EXPECT_FALSE(std::isnan(no_links.power));
  EXPECT_TRUE(std::isnan(no_links.links_active));
  EXPECT_TRUE(std::isnan(no_links.link_bytes_received));
}

TEST(NvmlApi, HasTheLayoutThatTheDriverWrites) {
  static_assert(sizeof(nvml::Utilization) == 8 && sizeof(nvml::Memory) == 24);
  static_assert(sizeof(nvml::Value) == 8 && sizeof(nvml::FieldValue) == 40);
  static_assert(offsetof(nvml::FieldValue, type) == 24 && offsetof(nvml::FieldValue, value) == 32);
#ifdef PENSTOCK_NVML_HEADER
  static_assert(sizeof(nvmlUtilization_t) == sizeof(nvml::Utilization));
  static_assert(sizeof(nvmlMemory_t) == sizeof(nvml::Memory));
  static_assert(offsetof(nvmlMemory_t, used) == offsetof(nvml::Memory, used));
  static_assert(sizeof(nvmlFieldValue_t) == sizeof(nvml::FieldValue));
  static_assert(offsetof(nvmlFieldValue_t, nvmlReturn) == offsetof(nvml::FieldValue, result));
  static_assert(NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX == nvml::kLinkDataSent);
  static_assert(NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_RX == nvml::kLinkDataReceived);
  static_assert(NVML_NVLINK_MAX_LINKS <= nvml::kLinksMax);
  static_assert(int{NVML_VALUE_TYPE_SIGNED_LONG_LONG} == int{nvml::kLongLong});
  static_assert(int{NVML_VALUE_TYPE_UNSIGNED_LONG_LONG} == int{nvml::kUnsignedLongLong});
  static_assert(int{NVML_TEMPERATURE_GPU} == nvml::kTemperatureGpu);
  static_assert(int{NVML_ERROR_NOT_SUPPORTED} == nvml::kNotSupported);
#endif
}

}  // namespace
}  // namespace penstock::engine
