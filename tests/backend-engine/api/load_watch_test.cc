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
  Reader(Loop& loop_in, std::vector<MonoTime>& lines_in, const size_t& unread_in)
      : loop(loop_in), lines(lines_in), unread(unread_in) {}
  void Send(int, std::string_view, std::string_view, const HeaderList&) override { FAIL(); }
  void Begin(int, std::string_view, const HeaderList&) override {}
  void Write(std::string_view data) override {
    EXPECT_EQ(std::ranges::count(data, '\n'), 1);
    lines.push_back(loop.now());
  }
  void End(const HeaderList&) override {}
  void Cut() override {}
  size_t buffered() const override { return unread; }
  bool client_gone() const override { return false; }
  void OnClientGone(absl::AnyInvocable<void()>) override {}

  Loop& loop;
  std::vector<MonoTime>& lines;
  const size_t& unread;
};

struct LoadWatchTest : ::testing::Test {
  void Watch() {
    std::unique_ptr<HttpAnswer> answer = std::make_unique<Reader>(loop, lines, unread);
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
  size_t unread = 0;
  MonoTime begun = 0;
  LoadWatch watch{loop, [this] { return report; }};
};

TEST_F(LoadWatchTest, AReaderThatDoesNotReadIsToldNoMore) {
  Watch();
  const size_t told = lines.size();
  unread = 2 << 20;
  network.Advance(2 * kSecond);
  Change();
  unread = 0;
  network.Advance(2 * kSecond);
  EXPECT_EQ(lines.size(), told);
}

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
