#include "backend-engine/api/load_watch.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tests/support/manual_loop.h"

namespace penstock::engine {
namespace {

// Keeps when each line came, in told time.
struct Reader final : HttpAnswer {
  explicit Reader(Loop& loop_in, std::vector<MonoTime>& lines_in) : loop(loop_in), lines(lines_in) {}
  void Send(int, std::string_view, std::string_view, const HeaderList&) override { FAIL(); }
  void Begin(int, std::string_view, const HeaderList&) override {}
  void Write(std::string_view data) override {
    EXPECT_EQ(std::ranges::count(data, '\n'), 1);
    lines.push_back(loop.now());
  }
  void End(const HeaderList&) override {}
  void Cut() override {}
  size_t buffered() const override { return 0; }
  bool client_gone() const override { return false; }
  void OnClientGone(absl::AnyInvocable<void()>) override {}

  Loop& loop;
  std::vector<MonoTime>& lines;
};

struct LoadWatchTest : ::testing::Test {
  void Watch() {
    std::unique_ptr<HttpAnswer> answer = std::make_unique<Reader>(loop, lines);
    ASSERT_TRUE(watch.Add(answer));
    begun = loop.now();
  }
  void Change() {
    ++report.figures.running;
    watch.Changed();
    network.RunUntilIdle();
  }
  // Since the reader came.
  std::vector<MonoTime> Times() const {
    std::vector<MonoTime> times;
    for (const MonoTime line : lines) times.push_back(line - begun);
    return times;
  }

  MemoryNetwork network;
  ManualLoop loop{network};
  LoadReport report;
  std::vector<MonoTime> lines;
  MonoTime begun = 0;
  LoadWatch watch{loop, [this] { return report; }};
};

TEST_F(LoadWatchTest, TellsEachHalfSecondWhereNothingChanges) {
  Watch();
  network.Advance(1700 * kMillisecond);
  EXPECT_EQ(Times(), (std::vector<MonoTime>{0, 500000, 1000000, 1500000}));
}

TEST_F(LoadWatchTest, TellsAChangeAtOnceAndTheHalfSecondBeginsAnew) {
  Watch();
  network.Advance(300 * kMillisecond);
  Change();
  network.Advance(600 * kMillisecond);
  EXPECT_EQ(Times(), (std::vector<MonoTime>{0, 300000, 800000}));
}

TEST_F(LoadWatchTest, TellsChangesInCloseSuccessionEachTwentyMilliseconds) {
  Watch();
  for (int i = 0; i < 50; ++i) {
    network.Advance(kMillisecond);
    Change();
  }
  network.Advance(100 * kMillisecond);
  EXPECT_EQ(Times(), (std::vector<MonoTime>{0, 20000, 40000, 60000}));
}

TEST_F(LoadWatchTest, TellsNothingWhereAReaderWouldChooseTheSame) {
  Watch();
  network.Advance(100 * kMillisecond);
  watch.Changed();
  network.Advance(100 * kMillisecond);
  EXPECT_EQ(lines.size(), 1u);
}

}  // namespace
}  // namespace penstock::engine
