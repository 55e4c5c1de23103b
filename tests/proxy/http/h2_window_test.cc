// Windows and settings of HTTP/2: what the peer says is obeyed, whatever it says.
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/support/h2_peer.h"
#include "tests/support/h2_wire.h"

namespace penstock {
namespace {

constexpr uint16_t kTableSize = 1, kMaxStreams = 3, kInitialWindow = 4;

struct Server : H2Peer {
  explicit Server(const std::vector<std::pair<uint16_t, uint32_t>>& settings,
                  const CodecLimits& limits = {})
      : H2Peer(CodecRole::kServer, limits) {
    Feed(h2::Hello(settings));
  }
  void Ask(uint32_t id) {
    Feed(h2::Headers(id, h2::Get()));
    ResponseHead head;
    head.status = 200;
    head.framing = Framing::kChunked;
    codec().WriteResponse(out(), id, head, {});
    Pump();   // The head waits for its body, or for the end of the turn.
  }
  std::vector<std::string> Write(uint32_t id, std::string_view data) {
    codec().WriteBody(out(), id, data);
    return FramesOf(Take());
  }
};

using Frames = std::vector<std::string>;

TEST(H2Window, OneThatIsNeverOpenedCostsNoMoreThanTheMark) {
  Server server({{kInitialWindow, 0}});
  const std::string piece(16 * 1024, 'x');
  for (uint32_t id = 1; id < 200; id += 2) {
    server.Ask(id);
    while (server.codec().unsent(id) <= Codec::kUnsentMark) {
      EXPECT_EQ(server.Write(id, piece), Frames());
    }
    EXPECT_EQ(server.codec().unsent(id), Codec::kUnsentMark + piece.size());
  }
  server.codec().WriteReset(server.out(), 1, kCancel);   // Its owner has waited long enough.
  EXPECT_EQ(FramesOf(server.Take()), Frames{"RST_STREAM 1 code 8"});
  EXPECT_EQ(server.codec().unsent(1), 0u);
  EXPECT_FALSE(server.failed());
}

TEST(H2Window, OneThatOpensByteByByteLetsBytesThrough) {
  Server server({{kInitialWindow, 0}});
  server.Ask(1);
  server.Write(1, "abcdefghij");
  for (int i = 0; i < 10; ++i) {
    EXPECT_EQ(FramesOf(server.Feed(h2::WindowUpdate(1, 1))), Frames{"DATA 1 1"});
  }
  EXPECT_EQ(server.codec().unsent(1), 0u);
  EXPECT_FALSE(server.failed());
}

TEST(H2Window, AChangedSettingCanMakeItNegative) {
  Server server({{kInitialWindow, 100}});
  server.Ask(1);
  EXPECT_EQ(server.Write(1, std::string(150, 'x')), Frames{"DATA 1 100"});
  EXPECT_EQ(FramesOf(server.Feed(h2::Settings({{kInitialWindow, 50}}))), Frames{"SETTINGS ack"});
  EXPECT_EQ(FramesOf(server.Feed(h2::WindowUpdate(1, 50))), Frames());
  EXPECT_EQ(FramesOf(server.Feed(h2::WindowUpdate(1, 10))), Frames{"DATA 1 10"});
  EXPECT_EQ(FramesOf(server.Feed(h2::Settings({{kInitialWindow, 200}}))),
            (Frames{"SETTINGS ack", "DATA 1 40"}));
}

TEST(H2Window, TheConnectionsIsSharedInTurn) {
  Server server({{kInitialWindow, 1'000'000}});
  server.Ask(1);
  server.Ask(3);
  server.Write(1, std::string(65'535, 'x'));
  server.Write(1, std::string(40'000, 'y'));
  server.Write(3, std::string(40'000, 'z'));
  const Frames frames = FramesOf(server.Feed(h2::WindowUpdate(0, 65'536)));
  EXPECT_EQ(frames.size(), 4u);   // Neither waits until the other is done.
  EXPECT_EQ(std::count(frames.begin(), frames.end(), "DATA 1 16384"), 2);
  EXPECT_EQ(std::count(frames.begin(), frames.end(), "DATA 3 16384"), 2);
}

TEST(H2Window, TheEndOfABodyWaitsForItsBytes) {
  Server server({{kInitialWindow, 3}});
  server.Ask(1);
  server.Write(1, "abcdef");
  const Header trailer[] = {{"x-sum", "1"}, {"x-evil", "a\nb"}};
  server.codec().WriteEnd(server.out(), 1, trailer);
  EXPECT_EQ(FramesOf(server.Take()), Frames());
  EXPECT_FALSE(server.codec().idle());
  EXPECT_EQ(FramesOf(server.Feed(h2::WindowUpdate(1, 100))), (Frames{"DATA 1 3", "HEADERS 1 end"}));
  EXPECT_TRUE(server.codec().idle());
}

TEST(H2Window, OursOpensAsBytesAreTakenAndNotWhilePaused) {
  CodecLimits limits;
  limits.h2.stream_window = 1000;
  Server server({}, limits);
  server.Feed(h2::Headers(1, h2::Post(), 0));
  EXPECT_EQ(FramesOf(server.Feed(h2::Data(1, std::string(600, 'x')))), Frames{"WINDOW_UPDATE 1 600"});
  server.codec().PauseBody(1);
  EXPECT_EQ(FramesOf(server.Feed(h2::Data(1, std::string(1000, 'x')))), Frames());
  EXPECT_EQ(server.of(1).body.size(), 1600u);   // At most one window is still told.
  server.codec().ResumeBody(server.out(), 1);
  EXPECT_EQ(FramesOf(server.Take()), Frames{"WINDOW_UPDATE 1 1000"});
  server.codec().PauseBody(1);
  EXPECT_EQ(FramesOf(server.Feed(h2::Data(1, std::string(1001, 'x')))),
            Frames{"RST_STREAM 1 code 3"});
  EXPECT_EQ(server.of(1).error_code, 3u);
  EXPECT_EQ(server.of(1).body.size(), 1600u);   // Not told: what the window did not allow.
}

TEST(H2Window, APausedMessageDoesNotHoldUpTheOthers) {
  CodecLimits limits;
  limits.h2.stream_window = 60'000;
  limits.h2.connection_window = 70'000;
  Server server({}, limits);
  server.Feed(h2::Headers(1, h2::Post(), 0) + h2::Headers(3, h2::Post(), 0));
  server.codec().PauseBody(1);
  const std::string data(10'000, 'x');
  Frames frames;
  for (int i = 0; i < 6; ++i) {
    for (const std::string& frame : FramesOf(server.Feed(h2::Data(1, data)))) frames.push_back(frame);
  }
  EXPECT_EQ(frames, Frames{"WINDOW_UPDATE 0 40000"});
  for (int i = 0; i < 20; ++i) server.Feed(h2::Data(3, data));
  EXPECT_FALSE(server.failed());
  EXPECT_EQ(server.of(3).body.size(), 200'000u);
}

TEST(H2Window, PaddingAndLateBytesAreGivenBackToo) {
  Server server({});
  server.Feed(h2::Headers(1, h2::Post(), 0) + h2::Headers(3, h2::Post(), 0));
  server.codec().WriteReset(server.out(), 1, kCancel);
  server.Take();
  const std::string padded = std::string(1, '\xff') + std::string(255, '\0');
  for (int i = 0; i < 10'000; ++i) {
    server.Feed(h2::Data(1, std::string(300, 'x')) + h2::Frame(0, h2::kPadded, 3, padded));
  }
  EXPECT_FALSE(server.failed());
  EXPECT_EQ(server.of(3).body, "");
}

TEST(H2Settings, OurTableStaysSmallWhateverThePeerOffers) {
  Server server({{kTableSize, 0xffff'ffff}});
  server.Feed(h2::Headers(1, h2::Get()));
  ResponseHead head;
  head.status = 200;
  server.codec().WriteResponse(server.out(), 1, head, {});
  const std::string block = server.Take().substr(H2FrameHead::kSize);
  // A table size update to 4096 at most (RFC 7541 6.3), or none.
  if ((static_cast<uint8_t>(block[0]) & 0xe0) == 0x20) {
    EXPECT_EQ(block.substr(0, 3), h2::Integer(0x20, 5, 4096));
  }
}

TEST(H2Settings, TheWindowsAndLimitsAreAnnounced) {
  CodecLimits limits;
  limits.h2.concurrent_streams = 7;
  limits.h2.table_bytes = 100;
  H2Peer server(CodecRole::kServer, limits);
  const std::string out = server.Pump();
  EXPECT_TRUE(out.starts_with(h2::Settings({{3, 7}, {4, 65536}, {6, 60 * 1024}, {1, 100}})));
  EXPECT_TRUE(out.ends_with(h2::WindowUpdate(0, 1024 * 1024 - 65535)));
  H2Peer client(CodecRole::kClient);
  EXPECT_TRUE(client.Pump().starts_with(std::string(h2::kPreface) +
                                        h2::Settings({{2, 0}, {4, 65536}, {6, 60 * 1024}})));
}

TEST(H2Settings, OursAreSettledOnceThePeerHasAcknowledgedThem) {
  H2Peer server(CodecRole::kServer);
  server.Pump();
  server.Feed(std::string(h2::kPreface) + h2::Settings());
  EXPECT_FALSE(server.codec().settled());
  server.Feed(h2::SettingsAck());
  EXPECT_TRUE(server.codec().settled());
}

TEST(H2Settings, ABackendsLimitOfStreamsIsTheRoom) {
  H2Peer client(CodecRole::kClient);
  client.Pump();
  EXPECT_EQ(client.codec().room(), 100u);
  client.Feed(h2::Settings({{kMaxStreams, 2}}));
  EXPECT_EQ(client.codec().room(), 2u);
  const RequestHead get = {.method = "GET", .target = "/", .authority = "h"};
  client.codec().WriteRequest(client.out(), get, {});
  EXPECT_EQ(client.codec().room(), 1u);
  const MessageId second = client.codec().WriteRequest(client.out(), get, {});
  EXPECT_EQ(client.codec().room(), 0u);
  EXPECT_TRUE(client.codec().reusable());
  client.codec().WriteReset(client.out(), second, kCancel);
  EXPECT_EQ(client.codec().room(), 1u);
  client.Feed(h2::Settings({{kMaxStreams, 0}}));
  EXPECT_EQ(client.codec().room(), 0u);
}

TEST(H2Settings, ARequestThatFindsNoRoomWaitsOrIsRefused) {
  H2Peer client(CodecRole::kClient);
  client.Feed(h2::Settings({{kMaxStreams, 1}}));
  const RequestHead get = {.method = "GET", .target = "/", .authority = "h"};
  client.codec().WriteRequest(client.out(), get, {});
  client.Pump();
  client.codec().WriteRequest(client.out(), get, {});
  EXPECT_EQ(FramesOf(client.Pump()), Frames());
  EXPECT_EQ(FramesOf(client.Feed(h2::Headers(1, {{":status", "204"}}))), Frames{"HEADERS 3 end"});
  client.Feed(h2::GoAway(3, 0));
  const MessageId late = client.codec().WriteRequest(client.out(), get, {});
  EXPECT_EQ(FramesOf(client.Pump()), Frames());
  EXPECT_EQ(client.of(late).error_code, kRefusedStream);
  EXPECT_EQ(client.of(late).resets, 1);
  EXPECT_FALSE(client.codec().idle());   // The one before it goes on.
  client.Feed(h2::Headers(3, {{":status", "204"}}));
  EXPECT_TRUE(client.codec().idle());
  EXPECT_EQ(client.wrong(), 0);
}

}  // namespace
}  // namespace penstock
