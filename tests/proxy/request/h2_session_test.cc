#include "proxy/request/h2_session.h"

#include <algorithm>
#include <string>

#include <gtest/gtest.h>

#include "proxy/base/random.h"
#include "tests/proxy/request/h2_client.h"
#include "tests/support/seeds.h"

namespace penstock {
namespace {

constexpr std::string_view kBody = R"({"model":"m"})";
constexpr std::string_view kStream = R"({"model":"m","stream":true})";
constexpr std::string_view kToken = "data: {\"choices\":[{\"text\":\"a\"}]}\n\n";

void Say(World& world, size_t conn, std::string_view bytes) {
  world.backends[0]->conns[conn]->stream->Write(bytes);
  world.Run();
}

// What a client that never opens a window says first.
std::string HelloWithoutWindow() { return h2::Hello({{4, 0}}); }

TEST(H2Session, AnswersManyRequestsSideBySideInAnyOrder) {
  World world;
  H2Client client(world);
  const MessageId ids[] = {client.Post(kBody), client.Get(), client.Post(kBody)};
  ASSERT_EQ(world.backends[0]->conns.size(), 3u);
  for (const size_t i : {2, 0, 1}) {
    Say(world, i, Ok("answer " + std::to_string(i)));
    EXPECT_EQ(client.status(ids[i]), 200);
    EXPECT_EQ(client.of(ids[i]).body, "answer " + std::to_string(i));
    EXPECT_EQ(client.of(ids[i]).ends, 1);
  }
  EXPECT_EQ(client.peer.wrong(), 0);
  EXPECT_EQ(world.metrics.Connections(ClientProtocol::kHttp2).value(), 1);
  EXPECT_EQ(world.metrics.Connections(ClientProtocol::kHttp1).value(), 0);
}

TEST(H2Session, IsRecognisedAtEverySplitOfItsFirstBytes) {
  const std::string all = h2::Hello() + h2::Headers(1, h2::Get("/x"));
  for (size_t cut = 1; cut < h2::kPreface.size() + 12; ++cut) {
    World world;
    world.backends[0]->answer = Ok("fine");
    const auto client = world.Connect();
    EXPECT_EQ(world.Ask(*client, all.substr(0, cut)).find("HTTP/1.1"), std::string::npos);
    const auto frames = FramesOf(world.Ask(*client, all.substr(cut)));
    EXPECT_TRUE(Has(frames, "HEADERS 1")) << cut;
    EXPECT_TRUE(Has(frames, "DATA 1 4 end")) << cut;
  }
}

TEST(H2Session, IsNotTakenForHttp1NorHttp1ForIt) {
  World world;
  world.backends[0]->answer = Ok("fine");
  for (const std::string_view first : {"P", "PR", "PRI * HTTP/2.0\r\n"}) {
    const auto client = world.Connect();
    EXPECT_EQ(world.Ask(*client, first), "");
    EXPECT_GE(StatusOf(world.Ask(*client, "\r\nnonsense\r\n\r\n")), 400) << first;
  }
  const auto client = world.Connect();
  EXPECT_EQ(world.Ask(*client, "P"), "");
  EXPECT_EQ(StatusOf(world.Ask(*client, Post(kBody).substr(1))), 200);
}

TEST(H2Session, BeginsOnlyWhereTheListenerSpeaksIt) {
  World world;
  world.entrance->h2 = false;
  const auto old = world.Connect();
  EXPECT_GE(StatusOf(world.Ask(*old, h2::Hello())), 400);
  world.entrance = std::make_shared<Entrance>(Entrance{.http1 = false});
  const auto other = world.Connect();
  const auto frames = FramesOf(world.Ask(*other, "GET / HTTP/1.1\r\nhost: a\r\n\r\n"));
  EXPECT_TRUE(Has(frames, "GOAWAY last 0 code 1")) << ::testing::PrintToString(frames);
  EXPECT_TRUE(other->ended);
}

TEST(H2Session, CancelsTheBackendRequestOfAStreamThatIsReset) {
  World world;
  H2Client client(world);
  const MessageId gone = client.Post(kStream), stays = client.Post(kStream);
  for (const size_t i : {0, 1}) Say(world, i, std::string(kEventsHead) + Chunk(kToken));
  client.Reset(gone);
  EXPECT_TRUE(world.backends[0]->conns[0]->ended);
  EXPECT_FALSE(world.backends[0]->conns[1]->ended);
  Say(world, 1, Chunk("data: [DONE]\n\n") + Chunk(""));
  EXPECT_EQ(client.of(stays).body, std::string(kToken) + "data: [DONE]\n\n");
  EXPECT_EQ(client.of(stays).ends, 1);
  EXPECT_EQ(world.metrics.h2_resets[static_cast<size_t>(H2Reset::kByClient)].value(), 1);
}

TEST(H2Session, AStreamThatTakesNothingBlocksNoOtherAndCostsLittle) {
  World world;
  world.network.link_options.window_bytes = 1024;
  world.network.link_options.high_mark = 64 * 1024;
  const auto client = world.Connect();
  client->stream->Write(HelloWithoutWindow() + h2::WindowUpdate(0, 1 << 28) +
                        h2::Headers(1, h2::Get("/a")) + h2::Headers(3, h2::Get("/b")));
  world.Run();
  ASSERT_EQ(world.backends[0]->conns.size(), 2u);
  const size_t size = 2 << 20;
  const std::string answer = "HTTP/1.1 200 OK\r\ncontent-length: " + std::to_string(size) +
                             "\r\n\r\n" + std::string(size, 'x');
  Say(world, 0, answer);
  Say(world, 1, answer);
  EXPECT_GT(world.backends[0]->conns[0]->stream->buffered(), size - 512 * 1024);
  client->Take();
  client->stream->Write(h2::WindowUpdate(3, 1 << 28));
  world.Run();
  EXPECT_GT(client->Take().size(), size);
  EXPECT_EQ(world.backends[0]->conns[1]->stream->buffered(), 0u);
  EXPECT_GT(world.backends[0]->conns[0]->stream->buffered(), size - 512 * 1024);
  client->stream->Write(h2::WindowUpdate(1, 1 << 28));
  world.Run();
  EXPECT_GT(client->Take().size(), size);
}

TEST(H2Session, ResetsAStreamThatTakesNothingForTooLong) {
  World world;
  const auto client = world.Connect();
  client->stream->Write(HelloWithoutWindow() + h2::Headers(1, h2::Get("/a")) +
                        h2::Headers(3, h2::Get("/b")));
  world.Run();
  Say(world, 0, "HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n" + std::string(200'000, 'x'));
  Say(world, 1, Ok("short"));           // Whole at its backend, not at its client.
  client->Take();
  world.Wait(58 * kSecond);
  EXPECT_TRUE(FramesOf(client->Take()).empty());
  world.Wait(5 * kSecond);
  const auto frames = FramesOf(client->Take());
  EXPECT_TRUE(Has(frames, "RST_STREAM 1 code 8"));
  EXPECT_TRUE(Has(frames, "RST_STREAM 3 code 8"));
  EXPECT_TRUE(world.backends[0]->conns[0]->ended);
  EXPECT_EQ(world.metrics.h2_resets[static_cast<size_t>(H2Reset::kStalled)].value(), 2);
  EXPECT_EQ(world.totals.requests, 0u);
}

TEST(H2Session, ASlowStreamIsNotAStalledOne) {
  World world;
  const auto client = world.Connect();
  client->stream->Write(HelloWithoutWindow() + h2::Headers(1, h2::Get("/a")));
  world.Run();
  Say(world, 0, Ok("0123456789"));
  for (int i = 0; i < 10; ++i) {
    world.Wait(50 * kSecond);
    client->stream->Write(h2::WindowUpdate(1, 1));
    world.Run();
  }
  const auto frames = FramesOf(client->Take());
  EXPECT_EQ(std::count(frames.begin(), frames.end(), "DATA 1 1"), 9);
  EXPECT_TRUE(Has(frames, "DATA 1 1 end"));
}

TEST(H2Session, ResetsABrokenAnswerAfterItsErrorEvent) {
  World world;
  H2Client client(world);
  const MessageId id = client.Post(kStream);
  Say(world, 0, std::string(kEventsHead) + Chunk(kToken));
  world.backends[0]->Reset();
  world.Run();
  EXPECT_NE(client.of(id).body.find("\"code\":\"backend_reset\""), std::string::npos);
  EXPECT_EQ(client.of(id).resets, 1);
  EXPECT_EQ(client.of(id).error_code, kInternalError);
  world.backends[0]->answer = Ok("fine");
  EXPECT_EQ(client.status(client.Post(kBody)), 200);  // The others go on.
}

TEST(H2Session, TheErrorEventOfABrokenAnswerWaitsForTheWindow) {
  World world;
  const auto client = world.Connect();
  client->stream->Write(h2::Hello({{4, 40}}) + h2::Headers(1, h2::Post("/v1/completions"), 0) +
                        h2::Data(1, kStream, h2::kEndStream));
  world.Run();
  Say(world, 0, std::string(kEventsHead) + Chunk(kToken));
  world.backends[0]->Reset();
  world.Run();
  auto frames = FramesOf(client->Take());
  EXPECT_TRUE(Has(frames, "DATA 1 34"));
  EXPECT_TRUE(Has(frames, "DATA 1 6"));
  EXPECT_FALSE(Has(frames, "RST_STREAM 1 code 2"));
  client->stream->Write(h2::WindowUpdate(1, 10'000));
  world.Run();
  frames = FramesOf(client->Take());
  ASSERT_EQ(frames.size(), 2u);
  EXPECT_TRUE(frames[0].starts_with("DATA 1 "));
  EXPECT_EQ(frames[1], "RST_STREAM 1 code 2");
}

TEST(H2Session, AnEventAsLongAsTheyMayBeReachesItsClientWithItsNeighbours) {
  World world;
  world.network.link_options.deliver_bytes = 4 << 20;
  world.network.link_options.window_bytes = 4 << 20;
  H2Client client(world);
  const MessageId id = client.Post(kStream);
  const auto event = [](size_t size) { return "data: " + std::string(size - 8, 'x') + "\n\n"; };
  std::string events(kToken), chunks(Chunk(kToken));
  // What the window takes, just less than pauses the backend, the longest one, and some behind it.
  for (const std::string& one : {event(65'000), event(65'000), event(1'048'500), event(2'000),
                                 std::string(kToken), std::string("data: [DONE]\n\n")}) {
    events += one;
    chunks += Chunk(one);
  }
  Say(world, 0, std::string(kEventsHead) + chunks + Chunk(""));
  EXPECT_EQ(client.of(id).resets, 0);
  EXPECT_EQ(client.of(id).body, events);
  EXPECT_EQ(client.of(id).ends, 1);
}

TEST(H2Session, AHeadBeyondTheLimitsIsAnsweredOnItsStreamAlone) {
  World world;
  H2Client client(world);
  const MessageId other = client.Post(kBody);
  const MessageId id = client.Begin("GET", "/x", Framing::kNone, 0,
                                    std::vector<Header>(101, Header{"a", "b"}));
  EXPECT_EQ(client.status(id), 431);
  EXPECT_NE(client.of(id).body.find("headers_too_large"), std::string::npos);
  Say(world, 0, Ok("fine"));
  EXPECT_EQ(client.status(other), 200);
  EXPECT_EQ(world.backends[0]->requests, 1);
}

TEST(H2Session, AnAnswerBeforeItsRequestIsWholeEndsBoth) {
  config::Server server;
  server.limits.request_body = 1000;
  World world(1, {}, server);
  H2Client client(world);
  const MessageId id = client.Begin("POST", "/v1/completions", Framing::kLength, 5000);
  EXPECT_EQ(client.status(id), 413);
  EXPECT_EQ(client.of(id).ends, 1);
  const auto frames = client.TakeFrames();
  EXPECT_EQ(frames.back(), "RST_STREAM 1 code 0");
  world.backends[0]->answer = Ok("fine");
  EXPECT_EQ(client.status(client.Post(kBody)), 200);
}

TEST(H2Session, PausesTheBodyOfOneRequestAlone) {
  World world;
  world.network.link_options.window_bytes = 1024;
  world.network.link_options.high_mark = 64 * 1024;
  H2Client client(world);
  const size_t size = 4 << 20;
  const MessageId slow = client.Begin("POST", "/x", Framing::kLength, size);
  world.backends[0]->conns[0]->stream->Pause();
  for (size_t sent = 0; sent < size && client.peer.codec().unsent(slow) < 256 * 1024; sent += 16384) {
    client.Say(slow, std::string(16384, 'x'));
  }
  EXPECT_GE(client.peer.codec().unsent(slow), 256u * 1024);
  world.backends[0]->answer = Ok("fine");
  EXPECT_EQ(client.status(client.Post(kBody)), 200);
  world.backends[0]->conns[0]->stream->Resume();
  world.Run();
  EXPECT_EQ(client.peer.codec().unsent(slow), 0u);
}

TEST(H2Session, PassesTrailersOnBothWays) {
  World world;
  H2Client client(world);
  const MessageId id = client.Begin("POST", "/x", Framing::kChunked);
  client.Say(id, "ab");
  const Header trailer{"x-checksum", "9a"};
  client.peer.codec().WriteEnd(client.peer.out(), id, std::span(&trailer, 1));
  client.Pump();
  EXPECT_TRUE(world.backends[0]->conns[0]->heard.ends_with("2\r\nab\r\n0\r\nx-checksum: 9a\r\n\r\n"));
  Say(world, 0, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nfine\r\n0\r\nx-sum: 1\r\n\r\n");
  EXPECT_EQ(client.of(id).body, "fine");
  EXPECT_EQ(client.of(id).trailers, "x-sum: 1\n");
}

TEST(H2Session, AConnectionThatDoesNotSpeakInTimeIsEnded) {
  for (const std::string& first :
       {h2::Hello().substr(0, 10), std::string(h2::kPreface), h2::Hello() + std::string("\0\0", 2),
        h2::Hello() + h2::Frame(1, 0, 1, h2::Block(h2::Get()))}) {
    World world;
    const auto client = world.Connect();
    world.Ask(*client, first);
    world.Wait(9 * kSecond);
    EXPECT_FALSE(client->closed());
    world.Wait(2 * kSecond);
    EXPECT_TRUE(client->ended);
    EXPECT_EQ(world.context->no_pool.timeouts[static_cast<size_t>(TimeoutKind::kRequestHeaders)].value(), 1);
  }
}

TEST(H2Session, AnIdleConnectionIsEndedWithGoAway) {
  World world;
  world.backends[0]->answer = Ok("fine");
  H2Client client(world);
  world.Wait(70 * kSecond);
  const MessageId id = client.Post(kBody);
  EXPECT_EQ(client.status(id), 200);
  world.Wait(74 * kSecond);
  EXPECT_FALSE(client.closed);
  world.Wait(2 * kSecond);
  EXPECT_TRUE(client.closed);
  EXPECT_EQ(client.TakeFrames().back(), "GOAWAY last 1 code 0");
  EXPECT_EQ(world.metrics.h2_goaways[static_cast<size_t>(H2GoAway::kIdle)].value(), 1);
}

TEST(H2Session, RequestsThatWereGivenUpKeepTheirPlacesForAMoment) {
  config::Server server;
  server.limits.streams_per_connection = 4;
  World world(1, {}, server);
  H2Client client(world);
  std::vector<MessageId> ids;
  for (int i = 0; i < 4; ++i) ids.push_back(client.Post(kBody));
  for (const MessageId id : ids) client.Reset(id);
  EXPECT_EQ(world.sessions->busy(), 0u);
  const MessageId refused = client.Get();
  EXPECT_EQ(client.of(refused).error_code, kRefusedStream);
  world.Wait(2 * kSecond);
  world.backends[0]->answer = Ok("fine");
  EXPECT_EQ(client.status(client.Get()), 200);
  EXPECT_EQ(world.backends[0]->requests, 5);
}

TEST(H2Session, ResetsWithoutEndReachTheBackendSeldom) {
  World world;
  const auto client = world.Connect();
  world.Ask(*client, h2::Hello());
  uint32_t id = 1;
  for (int i = 0; i < 20'000 && !client->ended; ++i, id += 2) {
    world.Ask(*client, h2::Headers(id, h2::Get("/x")));
    client->stream->Write(h2::Reset(id, 8));
    world.Run();
  }
  EXPECT_TRUE(client->ended);
  EXPECT_LT(world.backends[0]->requests, 500);
  EXPECT_EQ(world.metrics.h2_floods[0].value(), 1);  // "resets"
  EXPECT_EQ(world.totals.requests, 0u);
}

TEST(H2Session, AClientThatWastesMuchIsAskedToLeaveBeforeItIsCut) {
  World world;
  const auto client = world.Connect();
  const std::string odd = h2::Frame(0xfa, 0, 0, "");
  std::string much;
  for (int i = 0; i < 100; ++i) much += odd;
  world.Ask(*client, h2::Hello() + h2::Headers(1, h2::Get("/x")));
  for (int i = 0; i < 74; ++i) EXPECT_FALSE(Has(FramesOf(world.Ask(*client, much)), "GOAWAY"));
  EXPECT_EQ(FramesOf(world.Ask(*client, much)).back(), "GOAWAY last 2147483647 code 0");
  // What it had begun is answered, and so is what crosses the GOAWAY.
  Say(world, 0, Ok("fine"));
  EXPECT_TRUE(Has(FramesOf(client->Take()), "DATA 1 4 end"));
  world.backends[0]->answer = Ok("too");
  EXPECT_TRUE(Has(FramesOf(world.Ask(*client, h2::Headers(3, h2::Get("/x")))), "DATA 3 3 end"));
  world.Wait(H2Session::kGoAwayTime + 100 * kMillisecond);
  EXPECT_EQ(FramesOf(client->Take()).back(), "GOAWAY last 3 code 0");
  EXPECT_TRUE(client->ended);
  EXPECT_EQ(world.metrics.h2_goaways[static_cast<size_t>(H2GoAway::kNearFlood)].value(), 1);
  EXPECT_EQ(world.metrics.h2_goaways[static_cast<size_t>(H2GoAway::kFlood)].value(), 0);
}

TEST(H2Session, AClientThatGoesOnWastingIsCut) {
  World world;
  const auto client = world.Connect();
  world.Ask(*client, h2::Hello() + h2::Headers(1, h2::Get("/x")));
  std::string much;
  for (int i = 0; i < 1000; ++i) much += h2::Frame(0xfa, 0, 0, "");
  for (int i = 0; i < 9; ++i) world.Ask(*client, much);
  EXPECT_FALSE(client->ended);
  EXPECT_EQ(FramesOf(world.Ask(*client, much)).back(), "GOAWAY last 1 code 11");
  EXPECT_TRUE(client->ended);
  EXPECT_EQ(world.metrics.h2_goaways[static_cast<size_t>(H2GoAway::kNearFlood)].value(), 1);
  EXPECT_EQ(world.metrics.h2_goaways[static_cast<size_t>(H2GoAway::kFlood)].value(), 1);
  EXPECT_EQ(world.sessions->busy(), 0u);
}

TEST(H2Session, AClientThatNeverAcknowledgesOurSettingsIsEnded) {
  for (const bool acknowledges : {false, true}) {
    World world;
    const auto client = world.Connect();
    world.Ask(*client, std::string(h2::kPreface) + h2::Settings() + h2::Headers(1, h2::Get("/x")));
    world.Wait(9 * kSecond);
    EXPECT_FALSE(client->closed());
    if (acknowledges) world.Ask(*client, h2::SettingsAck());
    client->Take();
    world.Wait(2 * kSecond);
    EXPECT_EQ(client->ended, !acknowledges);
    EXPECT_EQ(world.metrics.h2_goaways[static_cast<size_t>(H2GoAway::kSettings)].value(), !acknowledges);
    EXPECT_EQ(world.metrics.protocol_errors.value(), 0);
    if (!acknowledges) {
      EXPECT_EQ(FramesOf(client->Take()).back(), "GOAWAY last 1 code 4");
    }
    EXPECT_EQ(world.sessions->busy(), acknowledges ? 1u : 0u);
  }
}

TEST(H2Session, DrainsInTwoStepsAndLosesNothing) {
  World world;
  H2Client client(world);
  const MessageId before = client.Post(kBody);
  world.context->draining = true;
  world.sessions->Drain(kNever);
  // A request that crosses the first GOAWAY on the wire is taken.
  client.stream->Write(h2::Headers(before + 2, h2::Get("/x")));
  world.Run();
  auto frames = client.TakeFrames();
  EXPECT_EQ(frames.back(), "GOAWAY last 2147483647 code 0");
  EXPECT_EQ(world.sessions->busy(), 2u);
  world.sessions->Drain(kNever);        // As the worker does, again and again.
  world.Wait(H2Session::kGoAwayTime + 100 * kMillisecond);
  frames = client.TakeFrames();
  ASSERT_EQ(frames.size(), 1u);
  EXPECT_EQ(frames[0], "GOAWAY last 3 code 0");
  Say(world, 0, Ok("one"));
  EXPECT_EQ(client.of(before).body, "one");
  EXPECT_FALSE(client.closed);
  Say(world, 1, Ok("two"));
  EXPECT_TRUE(Has(client.TakeFrames(), "DATA 3 3 end"));
  EXPECT_TRUE(client.closed);
  world.Wait(3 * kSecond);
  EXPECT_EQ(world.sessions->size(), 0u);
}

TEST(H2Session, GoesWhenItIsIdleOrAnsweredAndMemoryIsShort) {
  World world;
  H2Client idle(world), busy(world);
  const MessageId id = busy.Post(kBody);
  world.sessions->CloseIdle(kSecond);
  world.Wait(kSecond);
  EXPECT_FALSE(Has(idle.TakeFrames(), "GOAWAY last 2147483647 code 0"));
  world.sessions->CloseIdle(kSecond);
  world.totals.pressure = Pressure::kClose;
  world.Wait(H2Session::kGoAwayTime + 100 * kMillisecond);
  EXPECT_TRUE(Has(idle.TakeFrames(), "GOAWAY last 0 code 0"));
  EXPECT_TRUE(idle.closed);
  EXPECT_FALSE(busy.closed);
  Say(world, 0, Ok("one"));
  EXPECT_EQ(busy.of(id).body, "one");
  world.Wait(H2Session::kGoAwayTime + 100 * kMillisecond);
  EXPECT_TRUE(busy.closed);
}

TEST(H2Session, EndsWholeAnswersWhenADrainHasLastedLong) {
  World world;
  H2Client client(world);
  const MessageId whole = client.Post(kBody), stream = client.Post(kStream);
  Say(world, 1, std::string(kEventsHead) + Chunk(kToken));
  world.sessions->EndWhole();
  world.Run();
  EXPECT_EQ(client.status(whole), 503);
  EXPECT_EQ(client.of(stream).ends, 0);
  EXPECT_EQ(world.sessions->busy(), 1u);
}

TEST(H2Session, GoesWhenTheClientSaysGoAwayAndAllIsAnswered) {
  World world;
  H2Client client(world);
  const MessageId id = client.Post(kBody);
  client.stream->Write(h2::GoAway(0, 0));
  world.Run();
  EXPECT_FALSE(client.closed);
  Say(world, 0, Ok("fine"));
  EXPECT_EQ(client.of(id).body, "fine");
  EXPECT_TRUE(client.closed);
}

TEST(H2Session, CountsItsRequestsAgainstTheLimitOfAll) {
  config::Server server;
  server.limits.requests = 2;
  World world(1, {}, server);
  H2Client client(world);
  client.Post(kBody);
  client.Post(kBody);
  EXPECT_EQ(client.status(client.Post(kBody)), 503);
}

TEST(H2Session, CancelsEverythingWhenItsConnectionGoes) {
  World world;
  H2Client client(world);
  for (int i = 0; i < 5; ++i) client.Post(kBody);
  EXPECT_EQ(world.sessions->busy(), 5u);
  client.stream->Reset();
  world.Run();
  EXPECT_EQ(world.totals.requests, 0u);
  for (const auto& conn : world.backends[0]->conns) EXPECT_TRUE(conn->ended);
}

// Clients that start, stall, reset and vanish, backends that answer, break off and
// stay silent: whatever happens, each message ends once and nothing is left behind
// (World's destructor counts).
TEST(H2Session, LosesNothingWhateverItsPeersDo) {
  ForEachSeed(60, [](uint64_t seed) {
    Random random(seed);
    config::Server server;
    server.limits.streams_per_connection = 10;
    World world(1, {}, server);
    world.network.link_options.deliver_bytes = 1 + random.Below(3000);
    world.network.link_options.window_bytes = 1 + random.Below(40'000);
    world.network.link_options.high_mark = 1000 + random.Below(40'000);
    world.network.link_options.seed = seed;
    CodecLimits limits;
    limits.h2.stream_window = 1 + random.Below(100'000);
    H2Client client(world, limits);
    std::vector<MessageId> ids;
    for (int step = 0; step < 120 && !client.closed && !client.peer.failed(); ++step) {
      const uint32_t what = random.Below(10);
      if (what < 3 && client.peer.codec().room() > 0) {
        ids.push_back(what == 0 ? client.Get() : client.Post(what == 1 ? kBody : kStream));
      } else if (what == 3 && !ids.empty()) {
        client.Reset(ids[random.Below(static_cast<uint32_t>(ids.size()))]);
      } else if (what == 4) {
        world.Wait(random.Below(3000) * kMillisecond);
      } else if (what == 5) {
        random.Below(2) == 0 ? client.stream->Pause() : client.stream->Resume();
      } else if (!world.backends[0]->conns.empty()) {
        auto& conn = *world.backends[0]->conns[random.Below(
            static_cast<uint32_t>(world.backends[0]->conns.size()))];
        if (conn.ended) continue;
        switch (random.Below(5)) {
          case 0: conn.stream->Write(Ok(std::string(random.Below(300'000), 'x'))); break;
          case 1: conn.stream->Write(std::string(kEventsHead) + Chunk(kToken)); break;
          case 2: conn.stream->Write(Chunk(std::string(kToken) + std::string(kToken))); break;
          case 3: conn.stream->Write(Chunk("")); break;
          default:
            conn.stream->Reset();
            conn.ended = true;
        }
        world.Run();
      }
    }
    client.stream->Resume();
    world.Run();
    EXPECT_EQ(client.peer.wrong(), 0);
  });
}

}  // namespace
}  // namespace penstock
