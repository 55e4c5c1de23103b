#include "proxy/http/sse_clean.h"

#include <string>

#include <gtest/gtest.h>

#include "proxy/base/random.h"
#include "proxy/http/sse.h"

namespace penstock {
namespace {

TEST(CleanEvents, TakesIdsAndRetriesOutAndLeavesEverythingElse) {
  EXPECT_EQ(CleanEvents("id: 1\ndata: a\n\n"), "data: a\n\n");
  EXPECT_EQ(CleanEvents("data: a\nid:1\nretry: 100\nevent: x\n\ndata: b\n\n"), "data: a\nevent: x\n\ndata: b\n\n");
  EXPECT_EQ(CleanEvents("id\r\ndata: a\r\n\r\n"), "data: a\r\n\r\n");
  EXPECT_EQ(CleanEvents("id: 1\rdata: a\r\r"), "data: a\r\r");
  EXPECT_EQ(CleanEvents("idea: 1\nretrying: 2\ndata: id: 3\n\n"), "idea: 1\nretrying: 2\ndata: id: 3\n\n");
}

TEST(CleanEvents, OfAnEventWithoutDataOnlyCommentsStay) {
  EXPECT_EQ(CleanEvents("retry: 3000\n\ndata: a\n\n"), "data: a\n\n");
  EXPECT_EQ(CleanEvents("event: ping\n\n"), "");
  EXPECT_EQ(CleanEvents("event: ping\nid: 7\n: alive\n\n"), ": alive\n\n");
  EXPECT_EQ(CleanEvents(": alive\n\n"), ": alive\n\n");
  EXPECT_EQ(CleanEvents("event: ping\ndata\n\n"), "event: ping\ndata\n\n");
  EXPECT_EQ(CleanEvents("\n\ndata: a\n\n"), "\n\ndata: a\n\n");
}

// What the scanner calls clean is left as it is, and what has been cleaned is clean.
TEST(CleanEvents, DoesNothingToWhatIsCleanHoweverItIsMade) {
  static constexpr std::string_view kLines[] = {"data: a", "data", ": c",   "event: e", "id: 1", "id", "retry: 5",
                                                "x: y",    "",     "",      "data:",    "idx",   ":"};
  static constexpr std::string_view kEnds[] = {"\n", "\r\n", "\r"};
  Random random(5);
  for (int round = 0; round < 3000; ++round) {
    const std::string_view end = kEnds[random.Below(3)];
    std::string text;
    for (uint32_t lines = random.Below(12); lines > 0; --lines) {
      text += kLines[random.Below(std::size(kLines))];
      text += end;
    }
    text += end;
    text += end;
    SseScanner scanner;
    SseScanner::Result result;
    for (size_t at = 0, step = 1 + random.Below(9); at < text.size(); at += step) {
      const SseScanner::Result part = scanner.Scan(std::string_view(text).substr(at, step));
      result.unclean |= part.unclean;
      result.events += part.events;
    }
    const std::string clean = CleanEvents(text);
    if (!result.unclean) {
      EXPECT_EQ(clean, text);
    }
    SseScanner again;
    const SseScanner::Result after = again.Scan(clean);
    EXPECT_FALSE(after.unclean) << text;
    EXPECT_EQ(after.events, result.events) << text;
    EXPECT_EQ(CleanEvents(clean), clean);
  }
}

}  // namespace
}  // namespace penstock
