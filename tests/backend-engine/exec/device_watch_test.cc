#include "backend-engine/exec/device_watch.h"

#include <gtest/gtest.h>

#include <atomic>
#include <mutex>
#include <thread>

#include "tests/backend-engine/exec/nvml_library.h"

namespace penstock::engine {
namespace {

constexpr char kGpu[] = "0000:01:00.0";

template <typename Condition>
void WaitFor(const Condition& condition) {
  while (!condition()) std::this_thread::yield();
}

// Notes of a watch, which may outlive the test's own variables.
struct Notes {
  std::mutex mutex;
  std::vector<std::string> lines;
  std::atomic<size_t> count{0};
};

TEST(DeviceWatch, LooksAgainAndAgain) {
  const FakeNvmlLibrary fake;
  const DeviceWatch watch({.bus_ids = {kGpu}, .library = fake.path(), .period_seconds = 0.001});
  WaitFor([&] { return !watch.Read().figures.empty(); });
  EXPECT_DOUBLE_EQ(watch.Read().figures.at(0).temperature, 41);
  const int before = fake->asked;
  WaitFor([&] { return fake->asked > before + 2; });
  EXPECT_TRUE(watch.Read().possible);
}

TEST(DeviceWatch, FiguresGrowOldWhileALookHangsAndTheAgeIsTold) {
  const FakeNvmlLibrary fake;
  auto now = std::make_shared<std::atomic<double>>(100);
  {
    const DeviceWatch watch({.bus_ids = {kGpu}, .library = fake.path(), .period_seconds = 0.001,
                             .leave_seconds = 0, .now = [now] { return now->load(); }});
    WaitFor([&] { return !watch.Read().figures.empty(); });
    fake->hangs = true;
    const int before = fake->asked;
    *now = 104;
    EXPECT_LE(watch.Read().age_seconds, 4);
    // A look that was under way may still bring 104; no other one comes back.
    *now = 110;
    EXPECT_GE(watch.Read().age_seconds, 6);
    EXPECT_TRUE(watch.Read().figures.empty());
    EXPECT_TRUE(watch.Read().possible);
    EXPECT_LE(fake->asked, before + 1);
  }
  // The watch is gone, its thread still hangs: nobody waited for it.
  fake->hangs = false;
  WaitFor([&] { return fake->started == 0; });
}

TEST(DeviceWatch, AnAbsentLibraryIsOneNoteAndNoFigures) {
  auto notes = std::make_shared<Notes>();
  const DeviceWatch watch({.bus_ids = {kGpu}, .library = "libno-such-library.so.1",
                           .note = [notes](const std::string& text) {
                             const std::lock_guard lock(notes->mutex);
                             notes->lines.push_back(text);
                             ++notes->count;
                           }});
  WaitFor([&] { return !watch.Read().possible; });
  EXPECT_TRUE(watch.Read().figures.empty());
  const std::lock_guard lock(notes->mutex);
  ASSERT_EQ(notes->lines.size(), 1u);
  EXPECT_EQ(notes->lines[0].find("no figures of GPUs: libno-such-library.so.1"), 0u)
      << notes->lines[0];
}

TEST(DeviceWatch, AGpuThatTheLibraryDoesNotKnowIsOneNoteAndTheOthersAreTold) {
  const FakeNvmlLibrary fake;
  auto notes = std::make_shared<Notes>();
  const DeviceWatch watch({.bus_ids = {"0000:77:00.0", kGpu}, .library = fake.path(),
                           .note = [notes](const std::string& text) {
                             const std::lock_guard lock(notes->mutex);
                             notes->lines.push_back(text);
                           }});
  WaitFor([&] { return !watch.Read().figures.empty(); });
  const auto figures = watch.Read().figures;
  ASSERT_EQ(figures.size(), 2u);
  EXPECT_NE(figures[0].power, figures[0].power);  // Not a number.
  EXPECT_DOUBLE_EQ(figures[1].power, 312.5);
  const std::lock_guard lock(notes->mutex);
  ASSERT_EQ(notes->lines.size(), 1u);
  EXPECT_EQ(notes->lines[0], "no figures of the GPU at 0000:77:00.0: fake error");
}

}  // namespace
}  // namespace penstock::engine
