// One HTTP/2 connection: what happens to one of its calls, and to all of them.
#include "proxy/backends/h2_conn.h"

#include <algorithm>
#include <array>

#include <gtest/gtest.h>

#include "tests/proxy/backends/h2_pool.h"

namespace penstock {
namespace {

using Kind = ConnFailure::Kind;

TEST(H2Conn, CarriesManyRequestsSideBySide) {
  H2World world;
  std::array<H2Asker, 20> askers;
  for (H2Asker& asker : askers) world.Ask(asker);
  ASSERT_EQ(world.ends.size(), 1u);
  EXPECT_EQ(world.cells().streams.value(), 20);
  for (MessageId id = 39; id <= 39; id -= 2) {
    world.ends[0]->Answer(id, std::to_string(id));
    if (id == 1) break;
  }
  world.Run();
  for (size_t i = 0; i < askers.size(); ++i) {
    EXPECT_EQ(askers[i].status, 200);
    EXPECT_EQ(askers[i].body, std::to_string(2 * i + 1));
    EXPECT_EQ(askers[i].ends, 1);
  }
  EXPECT_EQ(world.cells().streams.value(), 0);
  EXPECT_EQ(world.pool->idle(), 1u);
}

TEST(H2Conn, TellsTrailersBothWays) {
  H2World world;
  H2Asker asker;
  world.Acquire(asker);
  {
    Turn::Scope scope(world.turn);
    RequestHead head{.method = "POST", .target = "/s", .authority = "engine", .framing = Framing::kChunked};
    asker.call->WriteRequest(head, {});
    asker.call->WriteBody("ping");
    const Header trailers[] = {{"x-sum", "4"}};
    asker.call->WriteEnd(trailers);
  }
  world.Run();
  const H2Peer::Heard& heard = world.ends[0]->peer.of(1);
  EXPECT_EQ(heard.head, "POST http /s path=/s authority=engine body=chunked\nhost: engine\n");
  EXPECT_EQ(heard.body, "ping");
  EXPECT_EQ(heard.trailers, "x-sum: 4\n");
  world.ends[0]->Head(1);
  const Header status[] = {{"grpc-status", "0"}};
  world.ends[0]->End(1, status);
  world.Run();
  EXPECT_EQ(asker.trailers, "grpc-status=0");
}

TEST(H2Conn, AKeptBodyOfAnySizeGoesAsTheWindowOpens) {
  H2World world;
  H2Asker asker;
  std::string body(3 << 20, 'x');
  body += "end";
  world.Acquire(asker);
  {
    Turn::Scope scope(world.turn);
    RequestHead head{.method = "POST", .target = "/s", .authority = "engine",
                     .framing = Framing::kLength, .content_length = body.size()};
    asker.call->WriteRequest(head, {});
    asker.call->WriteKept(body);
    asker.call->WriteEnd({});
  }
  world.Run();
  EXPECT_EQ(asker.failures, 0) << asker.failure.message;
  EXPECT_EQ(world.ends[0]->peer.of(1).ends, 1);
  EXPECT_TRUE(world.ends[0]->peer.of(1).body == body);
}

TEST(H2Conn, ABackendThatReadsNothingStopsTheProducerUntilItReads) {
  H2World world;
  H2Asker asker;
  world.Acquire(asker);
  world.ends[0]->peer.on_body = [&](MessageId id, std::string_view) {
    world.ends[0]->codec().PauseBody(id);
  };
  {
    Turn::Scope scope(world.turn);
    RequestHead head{.method = "POST", .target = "/s", .authority = "engine", .framing = Framing::kChunked};
    asker.call->WriteRequest(head, {});
  }
  world.Run();
  const std::string piece(16 * 1024, 'x');
  int pieces = 0;
  for (bool above = false; !above && pieces < 100; ++pieces) {
    Turn::Scope scope(world.turn);
    asker.call->WriteBody(piece);
    above = asker.call->above_mark();
  }
  EXPECT_LT(pieces, 20);
  world.Run();
  EXPECT_EQ(asker.writable, 0);
  world.ends[0]->peer.on_body = nullptr;
  world.ends[0]->codec().ResumeBody(world.ends[0]->peer.out(), 1);
  world.ends[0]->Send();
  world.Run();
  EXPECT_EQ(asker.writable, 1);
  EXPECT_EQ(asker.failures, 0);
}

TEST(H2Conn, AProducerThatWasToldToStopIsToldToGoOnHoweverOftenItAsked) {
  CodecLimits wide;
  wide.h2.stream_window = wide.h2.connection_window = 8 << 20;
  H2World world({}, wide);
  H2Asker asker;
  world.Acquire(asker);
  {
    Turn::Scope scope(world.turn);
    RequestHead head{.method = "POST", .target = "/s", .authority = "engine", .framing = Framing::kChunked};
    asker.call->WriteRequest(head, {});
  }
  world.Run();
  world.ends[0]->stream->Pause();
  const std::string piece(16 * 1024, 'x');
  const auto write = [&] {
    Turn::Scope scope(world.turn);
    asker.call->WriteBody(piece);
    return asker.call->above_mark();
  };
  int pieces = 0;
  while (!write()) ASSERT_LT(++pieces, 200);
  // Some of it leaves, too little to tell anybody; what the client had sent by then comes.
  size_t read = 0;
  world.ends[0]->peer.on_body = [&](MessageId, std::string_view data) {
    read += data.size();
    if (read > 64 * 1024) world.ends[0]->stream->Pause();
  };
  world.ends[0]->stream->Resume();
  world.Run();
  ASSERT_GT(read, 64u * 1024);
  ASSERT_EQ(asker.writable, 0);
  EXPECT_TRUE(write());
  world.ends[0]->peer.on_body = nullptr;
  world.ends[0]->stream->Resume();
  world.Run();
  EXPECT_EQ(asker.writable, 1);
}

TEST(H2Conn, APausedAnswerHoldsUpNoOther) {
  H2World world;
  H2Asker slow, quick;
  world.Ask(slow);
  world.Ask(quick);
  {
    Turn::Scope scope(world.turn);
    slow.call->PauseAnswer();
  }
  const std::string much(4 << 20, 's');
  world.ends[0]->Head(1);
  for (size_t i = 0; i < 16; ++i) world.ends[0]->Body(1, std::string_view(much).substr(0, 64 * 1024));
  world.Run();
  EXPECT_LE(slow.body.size(), 64u * 1024);
  world.ends[0]->Answer(3, "quick");
  world.Run();
  EXPECT_EQ(quick.body, "quick");
  EXPECT_EQ(quick.ends, 1);
  {
    Turn::Scope scope(world.turn);
    slow.call->ResumeAnswer();
  }
  world.Run();
  EXPECT_EQ(slow.body.size(), 16u * 64 * 1024);
}

TEST(H2Conn, ACallThatIsLeftIsResetAndTheOthersGoOn) {
  H2World world;
  H2Asker gone, stays;
  world.Ask(gone);
  world.Ask(stays);
  world.ends[0]->Head(1);
  world.Run();
  world.Leave(gone);
  EXPECT_EQ(world.ends[0]->peer.of(1).resets, 1);
  EXPECT_EQ(world.ends[0]->peer.of(1).error_code, kCancel);
  EXPECT_FALSE(world.ends[0]->closed);
  world.ends[0]->Answer(3);
  world.Run();
  EXPECT_EQ(stays.ends, 1);
  EXPECT_EQ(gone.failures, 0);
  H2Asker next;
  world.Ask(next);
  EXPECT_EQ(world.ends.size(), 1u);
}

TEST(H2Conn, AnAnswerThatIsWholeInTheBytesThatAreReadIsNotResetForBeingLeft) {
  H2World world;
  H2Asker asker;
  asker.leave_at_head = true;
  world.Ask(asker);
  // Head, body and end in one write, as a server sends a short refusal.
  world.ends[0]->codec().WriteResponse(world.ends[0]->peer.out(), 1,
                                       {.status = 429, .framing = Framing::kChunked}, {});
  world.ends[0]->codec().WriteBody(world.ends[0]->peer.out(), 1, "busy");
  world.ends[0]->codec().WriteEnd(world.ends[0]->peer.out(), 1);
  world.ends[0]->Send();
  world.Run();
  EXPECT_EQ(asker.status, 429);
  EXPECT_EQ(world.ends[0]->peer.of(1).resets, 0);
  EXPECT_EQ(world.cells().streams.value(), 0);
}

TEST(H2Conn, AResetEndsOneCallBeforeAndInsideItsAnswer) {
  H2World world;
  std::array<H2Asker, 3> askers;
  for (H2Asker& asker : askers) world.Ask(asker);
  world.ends[0]->Reset(1, kInternalError);
  world.ends[0]->Head(3);
  world.ends[0]->Reset(3, kInternalError);
  world.Run();
  EXPECT_EQ(askers[0].failures, 1);
  EXPECT_EQ(askers[0].failure.kind, Kind::kReset);
  EXPECT_FALSE(askers[0].failure.answer_begun);
  EXPECT_EQ(askers[0].failure.message, "backend b0: reset the stream: INTERNAL_ERROR");
  EXPECT_TRUE(askers[1].failure.answer_begun);
  EXPECT_FALSE(askers[1].failure.shared);
  world.ends[0]->Answer(5);
  world.Run();
  EXPECT_EQ(askers[2].ends, 1);
}

TEST(H2Conn, TellsWhatWasNotTouchedAndWhatIsTooMuch) {
  H2World world;
  std::array<H2Asker, 3> askers;
  for (H2Asker& asker : askers) world.Ask(asker);
  world.ends[0]->Reset(1, kRefusedStream);
  world.ends[0]->Reset(3, kEnhanceYourCalm);
  world.ends[0]->Reset(5, 0x1);
  world.Run();
  EXPECT_EQ(askers[0].failure.kind, Kind::kRefused);
  EXPECT_EQ(askers[1].failure.kind, Kind::kBusy);
  EXPECT_EQ(askers[2].failure.kind, Kind::kBadAnswer);
  EXPECT_EQ(world.cells().streams_refused.value(), 1);
}

TEST(H2Conn, AGoAwayLetsOldCallsEndAndGivesNewOnesBack) {
  H2World world;
  std::array<H2Asker, 3> askers;
  for (H2Asker& asker : askers) world.Ask(asker);
  world.ends[0]->GoAway(3);
  world.Run();
  EXPECT_EQ(askers[2].failures, 1);
  EXPECT_EQ(askers[2].failure.kind, Kind::kRefused);
  EXPECT_EQ(askers[0].failures + askers[1].failures, 0);
  EXPECT_EQ(world.cells().goaways.value(), 1);
  H2Asker later;
  world.Ask(later);
  ASSERT_EQ(world.ends.size(), 2u);
  world.ends[0]->Answer(1);
  world.Run();
  EXPECT_FALSE(world.ends[0]->closed);
  world.ends[0]->Answer(3);
  world.Run();
  EXPECT_EQ(askers[0].ends + askers[1].ends, 2);
  EXPECT_TRUE(world.ends[0]->closed);
  world.ends[1]->Answer(1);
  world.Run();
  EXPECT_EQ(later.ends, 1);
  EXPECT_EQ(world.pool->open(), 1u);
}

TEST(H2Conn, ALostConnectionIsToldOnceToEachCallAndAsAFaultToTheFirst) {
  H2World world;
  std::array<H2Asker, 10> askers;
  for (H2Asker& asker : askers) world.Ask(asker);
  world.ends[0]->Head(3);
  world.Run();
  world.ends[0]->stream->Reset();
  world.Run();
  for (size_t i = 0; i < askers.size(); ++i) {
    EXPECT_EQ(askers[i].failures, 1) << i;
    EXPECT_EQ(askers[i].failure.kind, Kind::kReset);
    EXPECT_EQ(askers[i].failure.shared, i > 0);
    EXPECT_EQ(askers[i].failure.answer_begun, i == 1);
  }
  EXPECT_EQ(world.pool->open(), 0u);
  EXPECT_EQ(world.cells().streams.value(), 0);
  EXPECT_EQ(world.cells().connections[1].value(), 0);
}

TEST(H2Conn, ABackendThatComesNearAFloodKeepsWhatItHasAndGetsNoMore) {
  H2World world;
  H2Asker first, second;
  world.Ask(first);
  for (int i = 0; i < 76; ++i) {
    std::string odd;
    for (int j = 0; j < 100; ++j) odd += h2::Frame(0xfa, 0, 0, "");
    world.ends[0]->stream->Write(odd);
    world.Run();
  }
  EXPECT_EQ(first.failures, 0);
  world.Ask(second);
  ASSERT_EQ(world.ends.size(), 2u);
  EXPECT_EQ(world.ends[0]->peer.goaways(), 1);
  world.ends[0]->Answer(1);
  world.ends[1]->Answer(1);
  world.Run();
  EXPECT_EQ(first.body, "fine");
  EXPECT_EQ(second.body, "fine");
  EXPECT_TRUE(world.ends[0]->closed);
  EXPECT_FALSE(world.ends[1]->closed);
}

TEST(H2Conn, ABackendThatFloodsIsLeft) {
  std::string pings, settings, empty;
  for (int i = 0; i < 20'000; ++i) pings += h2::Ping();
  for (int i = 0; i < 20'000; ++i) settings += h2::Settings();
  empty = h2::Headers(1, {{":status", "200"}}, 0);
  for (int i = 0; i < 100; ++i) empty += h2::Data(1, "");
  std::string continuations = h2::Frame(1, 0, 1, h2::Literal(":status", "200"));
  for (int i = 0; i < 100; ++i) continuations += h2::Frame(9, 0, 1, h2::Literal("a", "b"));
  for (const std::string& flood : {pings, settings, empty, continuations}) {
    H2World world;
    H2Asker first, second;
    world.Ask(first);
    world.Ask(second);
    world.ends[0]->stream->Write(flood);
    world.Run();
    EXPECT_EQ(first.failures, 1);
    EXPECT_EQ(first.failure.kind, Kind::kBadAnswer);
    EXPECT_FALSE(first.failure.shared);
    EXPECT_EQ(second.failures, 1);
    EXPECT_TRUE(second.failure.shared);
    EXPECT_TRUE(world.ends[0]->closed);
    // Where bytes are left unread, the reset may overtake the goodbye, as on TCP.
    if (flood.size() < 64 * 1024) {
      EXPECT_EQ(FramesOf(world.ends[0]->heard, true).back(), "GOAWAY last 0 code 11");
    }
    EXPECT_EQ(world.cells().http2_errors.value(), 1);
    EXPECT_EQ(world.pool->open(), 0u);
  }
}

TEST(H2Conn, ABackendThatSpeaksHttp1IsToldFromALostOne) {
  H2World world;
  H2Asker asker;
  world.Ask(asker);
  world.ends[0]->stream->Write("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n");
  world.Run();
  EXPECT_EQ(asker.failures, 1);
  EXPECT_EQ(asker.failure.kind, Kind::kBadAnswer);
}

TEST(H2Conn, APingFollowsSilenceAndItsAnswerKeepsTheConnection) {
  H2World world({.ping_interval = 10 * kSecond});
  H2Asker asker;
  world.Ask(asker);
  world.ends[0]->heard.clear();
  world.network.Advance(11 * kSecond);
  const auto frames = FramesOf(world.ends[0]->heard);
  EXPECT_NE(std::ranges::find(frames, "PING"), frames.end());
  world.network.Advance(60 * kSecond);
  EXPECT_EQ(asker.failures, 0);
  EXPECT_FALSE(world.ends[0]->closed);
}

TEST(H2Conn, NoAnswerToAPingIsALostConnection) {
  H2World world({.ping_interval = 10 * kSecond, .ping_timeout = 2 * kSecond});
  H2Asker asker;
  world.Ask(asker);
  world.ends[0]->stream->Pause();
  world.network.Advance(11 * kSecond);
  EXPECT_EQ(asker.failures, 0);
  world.network.Advance(2 * kSecond);
  EXPECT_EQ(asker.failures, 1);
  EXPECT_EQ(asker.failure.kind, Kind::kReset);
  EXPECT_NE(asker.failure.message.find("no answer to a PING within 2000 ms"), std::string::npos);
  EXPECT_EQ(world.pool->open(), 0u);
}

}  // namespace
}  // namespace penstock
