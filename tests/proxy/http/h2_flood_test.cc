// Each limit on what one HTTP/2 peer may make us do, reached and not reached.
#include <gtest/gtest.h>

#include "proxy/http/h2_flood.h"
#include "tests/support/h2_wire.h"

namespace penstock {
namespace {

using Type = H2FrameType;

H2FrameHead Head(Type type, uint8_t flags = 0, uint32_t stream = 0, uint32_t length = 8) {
  return {.length = length, .type = type, .flags = flags, .stream = stream};
}

// How many such frames are let through, up to 20,000.
int Allowed(H2Flood& flood, const H2FrameHead& head, std::string_view word) {
  for (int count = 0; count < 20'000; ++count) {
    const std::string_view said = flood.OnFrame(head);
    if (said.empty()) continue;
    EXPECT_EQ(said, word);
    return count;
  }
  return 20'000;
}

TEST(H2Frames, AreFoundHoweverTheBytesAreCut) {
  const std::string bytes = std::string(h2::kPreface) + h2::Settings({{3, 100}}) + h2::Ping() +
                            h2::Data(0x7fff'ffff, std::string(300, 'x'), h2::kEndStream) +
                            h2::Frame(0xff, 0xff, 0x8000'0001, "");
  for (size_t step = 1; step <= bytes.size(); ++step) {
    H2FrameScan scan(h2::kPreface.size());
    std::string seen;
    for (size_t at = 0; at < bytes.size(); at += step) {
      std::string_view piece = std::string_view(bytes).substr(at, step);
      while (!piece.empty()) {
        piece.remove_prefix(scan.Take(piece));
        if (!scan.whole()) continue;
        const H2FrameHead& head = scan.head();
        seen += std::to_string(static_cast<int>(head.type)) + ":" + std::to_string(head.length) +
                ":" + std::to_string(head.flags) + ":" + std::to_string(head.stream) + " ";
      }
    }
    ASSERT_EQ(seen, "4:6:0:0 6:8:0:0 0:300:1:2147483647 255:0:255:1 ") << step;
  }
}

TEST(H2Frames, AHeadIsUnderWayUntilItsLastByte) {
  const std::string whole = h2::Hello() + h2::Headers(1, h2::Post(), 0);
  const std::string half = h2::Frame(1, h2::kEndStream, 3, h2::Block(h2::Get()));
  const std::string more = h2::Frame(9, h2::kEndHeaders, 3, "");
  const auto inside = [](std::string_view bytes) {
    H2FrameScan scan(h2::kPreface.size());
    while (!bytes.empty()) bytes.remove_prefix(scan.Take(bytes));
    return scan.inside_head();
  };
  EXPECT_TRUE(inside(""));
  EXPECT_TRUE(inside(h2::kPreface));
  EXPECT_FALSE(inside(whole));
  EXPECT_TRUE(inside(whole.substr(0, whole.size() - 1)));
  EXPECT_TRUE(inside(whole + half));
  EXPECT_FALSE(inside(whole + half + more));
  EXPECT_TRUE(inside(whole + h2::Data(1, "abc").substr(0, 5)));   // Of what kind is not known.
  EXPECT_FALSE(inside(whole + h2::Data(1, "abc").substr(0, 10)));
  EXPECT_TRUE(inside(whole + h2::Ping().substr(0, 10)));
}

TEST(H2Frames, AClientSaysNothingInAStreamThatItHasEnded) {
  H2OpenToPeer streams;
  EXPECT_TRUE(streams.Take(Head(Type::kHeaders, 0, 1)));
  EXPECT_TRUE(streams.Take(Head(Type::kHeaders, H2FrameHead::kEndStream, 5)));
  EXPECT_TRUE(streams.Take(Head(Type::kData, 0, 1)));
  EXPECT_TRUE(streams.Take(Head(Type::kHeaders, H2FrameHead::kEndStream, 1)));   // Trailers.
  for (const uint32_t stream : {1, 3, 5}) {   // 3 was left out, which closes it.
    EXPECT_FALSE(streams.Take(Head(Type::kData, 0, stream))) << stream;
    EXPECT_FALSE(streams.Take(Head(Type::kHeaders, 0, stream))) << stream;
    EXPECT_TRUE(streams.Take(Head(Type::kRstStream, 0, stream))) << stream;
    EXPECT_TRUE(streams.Take(Head(Type::kWindowUpdate, 0, stream))) << stream;
  }
  EXPECT_TRUE(streams.Take(Head(Type::kHeaders, 0, 7)));
  EXPECT_TRUE(streams.Take(Head(Type::kRstStream, 0, 7)));
  EXPECT_FALSE(streams.Take(Head(Type::kData, 0, 7)));
  EXPECT_TRUE(streams.Take(Head(Type::kData, 0, 9)));   // Idle: another error than this one.
}

TEST(H2Frames, OfVeryManyOpenStreamsTheOldestAreForgotten) {
  H2OpenToPeer streams;
  for (uint32_t i = 0; i <= H2OpenToPeer::kMax; ++i) {
    EXPECT_TRUE(streams.Take(Head(Type::kHeaders, 0, 2 * i + 1)));
  }
  for (int i = 0; i < 2; ++i) EXPECT_TRUE(streams.Take(Head(Type::kData, H2FrameHead::kEndStream, 1)));
  EXPECT_TRUE(streams.Take(Head(Type::kData, H2FrameHead::kEndStream, 3)));
  EXPECT_FALSE(streams.Take(Head(Type::kData, H2FrameHead::kEndStream, 3)));
}

TEST(H2Flood, ResetsMayComeInABurstAndThenAtARate) {
  H2Flood flood({.reset_burst = 10, .resets_per_second = 2}, true);
  const H2FrameHead reset = Head(Type::kRstStream, 0, 1, 4);
  flood.SetNow(kSecond);
  EXPECT_EQ(Allowed(flood, reset, "resets"), 10);
  flood.SetNow(2 * kSecond);
  EXPECT_EQ(Allowed(flood, reset, "resets"), 2);
  flood.SetNow(2 * kSecond + kSecond / 2);
  EXPECT_EQ(Allowed(flood, reset, "resets"), 1);
  flood.SetNow(kSecond);   // Time that goes back gives nothing.
  EXPECT_EQ(Allowed(flood, reset, "resets"), 0);
  flood.SetNow(kNever / 2);
  EXPECT_EQ(Allowed(flood, reset, "resets"), 10);
}

TEST(H2Flood, ResetsThatThePeerCausesCountAsItsOwn) {
  H2Flood flood({.reset_burst = 3}, true);
  EXPECT_EQ(flood.OnResetSent(), "");
  EXPECT_EQ(flood.OnFrame(Head(Type::kRstStream)), "");
  EXPECT_EQ(flood.OnResetSent(), "");
  EXPECT_EQ(flood.OnResetSent(), "resets");
}

TEST(H2Flood, AHeaderBlockHasSoManyContinuations) {
  H2Flood flood({}, true);
  flood.OnFrame(Head(Type::kHeaders, 0, 1));
  EXPECT_EQ(Allowed(flood, Head(Type::kContinuation, 0, 1), "continuations"), 8);
  H2Flood another({}, true);
  for (uint32_t stream = 1; stream < 100; stream += 2) {   // The next block begins anew.
    EXPECT_EQ(another.OnFrame(Head(Type::kHeaders, 0, stream)), "");
    for (int i = 0; i < 8; ++i) EXPECT_EQ(another.OnFrame(Head(Type::kContinuation, 0, stream)), "");
  }
}

TEST(H2Flood, FramesThatCarryAndEndNothingComeOneInARow) {
  for (const Type type : {Type::kData, Type::kHeaders}) {
    H2Flood flood({}, true);
    for (int i = 0; i < 100; ++i) {
      EXPECT_EQ(flood.OnFrame(Head(type, 0, 1, 0)), "");
      EXPECT_EQ(flood.OnFrame(Head(Type::kData, 0, 1, 1)), "");
      EXPECT_EQ(flood.OnFrame(Head(Type::kData, H2FrameHead::kEndStream, 1, 0)), "");
    }
    EXPECT_EQ(Allowed(flood, Head(type, 0, 1, 0), "empty_frames"), 1);
  }
}

TEST(H2Flood, PrioritiesGrowWithStreams) {
  for (const Type type : {Type::kPriority, Type::kPriorityUpdate}) {
    H2Flood flood({}, true);
    EXPECT_EQ(Allowed(flood, Head(type), "priorities"), 100);
    H2Flood busy({}, true);
    for (uint32_t stream = 1; stream <= 19; stream += 2) busy.OnFrame(Head(Type::kHeaders, 0, stream));
    busy.OnFrame(Head(Type::kHeaders, 0, 19));   // Trailers open nothing.
    EXPECT_EQ(Allowed(busy, Head(type), "priorities"), 1100);
  }
}

TEST(H2Flood, WindowUpdatesGrowWithStreamsAndWithWhatWasSent) {
  H2Flood flood({}, true);
  EXPECT_EQ(Allowed(flood, Head(Type::kWindowUpdate, 0, 0, 4), "window_updates"), 5);
  H2Flood busy({}, false);
  busy.OnStreamOpened();
  for (int i = 0; i < 3; ++i) EXPECT_EQ(busy.OnFrameWritten(true), "");
  EXPECT_EQ(busy.OnFrameWritten(false), "");
  EXPECT_EQ(Allowed(busy, Head(Type::kWindowUpdate, 0, 0, 4), "window_updates"), 5 + 2 * (1 + 30));
}

TEST(H2Flood, AnswersThatAreDueHaveALimitUntilTheyAreWritten) {
  for (const Type type : {Type::kPing, Type::kSettings}) {
    H2Flood flood({}, true);
    EXPECT_EQ(Allowed(flood, Head(type, 0, 0, 0), "control_frames"), 1000);
    flood.OnWritten();
    EXPECT_EQ(Allowed(flood, Head(type, 0, 0, 0), "control_frames"), 1000);
  }
}

TEST(H2Flood, SettingsHaveSoManyEntries) {
  H2Flood flood({}, true);
  EXPECT_EQ(flood.OnFrame(Head(Type::kSettings, 0, 0, 32 * 6)), "");
  EXPECT_EQ(flood.OnFrame(Head(Type::kSettings, 0, 0, 33 * 6)), "settings");
}

TEST(H2Flood, OddFramesHaveABudgetOfTheirOwn) {
  H2Flood flood({}, true);
  EXPECT_EQ(Allowed(flood, Head(static_cast<Type>(0xfa)), "glitches"), 10'000);
  flood.SetNow(0);
  flood.SetNow(kSecond);
  EXPECT_EQ(Allowed(flood, Head(Type::kPing, H2FrameHead::kAck), "glitches"), 330);
  EXPECT_EQ(flood.OnGlitch(), "glitches");
}

TEST(H2Flood, TheLastQuarterOfABudgetIsLittle) {
  H2Flood flood({.reset_burst = 8, .resets_per_second = 1, .glitch_burst = 8}, true);
  for (int i = 0; i < 5; ++i) EXPECT_EQ(flood.OnFrame(Head(Type::kRstStream, 0, 1, 4)), "");
  EXPECT_FALSE(flood.low());
  EXPECT_EQ(flood.OnResetSent(), "");
  EXPECT_TRUE(flood.low());
  flood.SetNow(0);
  flood.SetNow(kSecond);   // It fills up again.
  EXPECT_FALSE(flood.low());
  for (int i = 0; i < 6; ++i) EXPECT_EQ(flood.OnGlitch(), "");
  EXPECT_TRUE(flood.low());
}

TEST(H2Flood, FramesThatNobodyTakesHaveALimit) {
  H2Flood flood({.outbound_frames = 3}, true);
  for (int round = 0; round < 3; ++round) {
    for (int i = 0; i < 3; ++i) EXPECT_EQ(flood.OnFrameWritten(i == 1), "");
    flood.OnTaken();
  }
  for (int i = 0; i < 3; ++i) flood.OnFrameWritten(false);
  EXPECT_EQ(flood.OnFrameWritten(false), "outbound_frames");
}

}  // namespace
}  // namespace penstock
