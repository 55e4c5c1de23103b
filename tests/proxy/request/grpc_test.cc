#include "proxy/request/grpc.h"

#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/proxy/request/h2_backends.h"

namespace penstock {
namespace {

TEST(Grpc, IsToldByItsContentType) {
  const std::vector<std::pair<std::string, bool>> types = {
      {"application/grpc", true},      {"application/grpc+proto", true}, {"Application/GRPC;x=y", true},
      {"application/grpc-web", false}, {"application/grpc-web+proto", false},
      {"application/json", false},     {"application/gr", false},        {"", false}};
  for (const auto& [type, is] : types) {
    Header headers[] = {{"content-type", type, KnownHeader::kContentType}};
    RequestHead head;
    head.headers = headers;
    EXPECT_EQ(IsGrpc(head), is) << type;
  }
  EXPECT_FALSE(IsGrpc({}));
}

TEST(Grpc, ReadsAStatusAndTakesNonsenseForUnknown) {
  const auto read = [](std::string_view value) {
    const Header headers[] = {{"x", "y"}, {"grpc-status", value}};
    return ReadGrpcStatus(headers);
  };
  EXPECT_EQ(read("0"), GrpcStatus::kOk);
  EXPECT_EQ(read("14"), GrpcStatus::kUnavailable);
  for (const std::string_view nonsense : {"", "-1", "17", "1x", "99999999999999999999"}) {
    EXPECT_EQ(read(nonsense), GrpcStatus::kUnknown) << nonsense;
  }
  EXPECT_EQ(ReadGrpcStatus({}), std::nullopt);
}

TEST(Grpc, AStatusCountsAsTheSameFailureOfPlainHttpDoes) {
  EXPECT_EQ(OutcomeOf(GrpcStatus::kOk), Outcome::kOk);
  EXPECT_EQ(OutcomeOf(GrpcStatus::kUnimplemented), Outcome::kOk);
  EXPECT_EQ(OutcomeOf(GrpcStatus::kUnavailable), Outcome::kFault);
  EXPECT_EQ(OutcomeOf(GrpcStatus::kInternal), Outcome::kFault);
  EXPECT_EQ(OutcomeOf(GrpcStatus::kResourceExhausted), Outcome::kBusy);
  EXPECT_EQ(OutcomeOf(GrpcStatus::kDeadlineExceeded), Outcome::kClientLeft);
  EXPECT_EQ(OutcomeOf(std::nullopt), Outcome::kFault);
}

TEST(Grpc, ErrorsOfOursHaveTheStatusThatTheirHttpStatusMapsTo) {
  EXPECT_EQ(GrpcStatusOf(ReplyCode::kBadRequest), GrpcStatus::kInternal);
  EXPECT_EQ(GrpcStatusOf(ReplyCode::kUnauthorized), GrpcStatus::kUnauthenticated);
  EXPECT_EQ(GrpcStatusOf(ReplyCode::kRouteNotFound), GrpcStatus::kUnimplemented);
  EXPECT_EQ(GrpcStatusOf(ReplyCode::kQueueFull), GrpcStatus::kUnavailable);
  EXPECT_EQ(GrpcStatusOf(ReplyCode::kBackendReset), GrpcStatus::kUnavailable);
  EXPECT_EQ(GrpcStatusOf(ReplyCode::kNoHealthyBackend), GrpcStatus::kUnavailable);
  EXPECT_EQ(GrpcStatusOf(ReplyCode::kResponseTimeout), GrpcStatus::kUnavailable);
  EXPECT_EQ(GrpcStatusOf(ReplyCode::kDeadlineExceeded), GrpcStatus::kDeadlineExceeded);
  EXPECT_EQ(GrpcStatusOf(ReplyCode::kBodyTooLarge), GrpcStatus::kUnknown);
}

TEST(Grpc, AMessageIsPercentEncoded) {
  EXPECT_EQ(GrpcMessage("no backend, 50%: \n\xc3\xa4"), "no backend, 50%25: %0A%C3%A4");
}

// What passes through, from a client whose bytes a test can read.
constexpr std::string_view kHead =
    "POST /pkg.Service/Method HTTP/1.1\r\nhost: api\r\ncontent-type: application/grpc\r\n"
    "connection: te\r\nte: trailers\r\ntransfer-encoding: chunked\r\n\r\n";

struct GrpcWorld {
  GrpcWorld() : world(1, Http2Pool()), backends(world), client(world.Connect()) {
    client->stream->Write(kHead);
    world.Run();
  }
  void Say(std::string_view message) {
    client->stream->Write(Chunk(message));
    world.Run();
  }
  H2End& end(size_t i = 0) { return *backends.ends[0].at(i); }
  const BackendState& state() { return world.fleet->pools[0]->backends[0]->state; }

  World world;
  H2Backends backends;
  std::unique_ptr<Peer> client;
};

TEST(Grpc, MessagesPassBothWaysAsTheyComeAndTheStatusLast) {
  GrpcWorld grpc;
  ASSERT_EQ(grpc.backends.ends[0].size(), 1u);
  EXPECT_NE(grpc.end().peer.of(1).head.find("te: trailers\n"), std::string::npos);
  grpc.Say("ask1");
  EXPECT_EQ(grpc.end().peer.of(1).body, "ask1");
  grpc.end().Head(1, 200, "application/grpc");
  grpc.end().Body(1, "say1");
  grpc.world.Run();
  EXPECT_NE(grpc.client->Take().find("say1"), std::string::npos);
  grpc.Say("ask2");
  EXPECT_EQ(grpc.end().peer.of(1).body, "ask1ask2");
  EXPECT_EQ(grpc.end().peer.of(1).ends, 0);
  grpc.client->stream->Write("0\r\n\r\n");
  grpc.world.Run();
  EXPECT_EQ(grpc.end().peer.of(1).ends, 1);
  const Header trailers[] = {{"grpc-status", "0"}, {"grpc-message", "fine"}};
  grpc.end().End(1, trailers);
  grpc.world.Run();
  EXPECT_TRUE(grpc.client->Take().ends_with("0\r\ngrpc-status: 0\r\ngrpc-message: fine\r\n\r\n"));
}

TEST(Grpc, AStreamMayBeSilentForLongInBothDirections) {
  GrpcWorld grpc;
  grpc.Say("ask1");
  grpc.world.Wait(120 * kSecond);
  EXPECT_EQ(grpc.client->Take(), "");
  EXPECT_EQ(grpc.end().peer.of(1).resets, 0);
}

TEST(Grpc, ARequestThatIsGivenBackGoesAgainWithItsBody) {
  GrpcWorld grpc;
  grpc.Say("ask1");
  grpc.Say("ask2");
  grpc.end().GoAway(0);
  grpc.world.Run();
  ASSERT_EQ(grpc.backends.ends[0].size(), 2u);
  EXPECT_EQ(grpc.end(1).peer.of(1).body, "ask1ask2");
  grpc.Say("ask3");
  grpc.client->stream->Write("0\r\n\r\n");
  grpc.world.Run();
  EXPECT_EQ(grpc.end(1).peer.of(1).body, "ask1ask2ask3");
  EXPECT_EQ(grpc.end(1).peer.of(1).ends, 1);
}

TEST(Grpc, ARequestThatSentMoreThanIsHeldIsNotSentAgain) {
  GrpcWorld grpc;
  for (int i = 0; i < 3; ++i) grpc.Say(std::string(30 * 1024, 'x'));
  grpc.end().Reset(1, kRefusedStream);
  grpc.world.Run();
  EXPECT_EQ(grpc.end().peer.all().size(), 1u);
  EXPECT_NE(grpc.client->Take().find("grpc-status: 14\r\n"), std::string::npos);
}

TEST(Grpc, AFailedStatusIsAFaultAndExhaustionARest) {
  for (const auto& [status, fault, rests] :
       {std::tuple("14", true, false), std::tuple("8", false, true), std::tuple("5", false, false)}) {
    config::Pool pool = Http2Pool();
    pool.circuit_breaker.consecutive_failures = 1;
    World world(1, pool);
    H2Backends backends(world);
    const auto client = world.Connect();
    client->stream->Write(std::string(kHead) + "0\r\n\r\n");
    world.Run();
    H2End& end = *backends.ends[0].at(0);
    end.Head(1, 200, "application/grpc");
    end.Body(1, "some");
    const Header trailers[] = {{"grpc-status", status}};
    end.End(1, trailers);
    world.Run();
    const BackendState& state = world.fleet->pools[0]->backends[0]->state;
    EXPECT_EQ(state.breaker.view().state == BreakerState::kOpen, fault) << status;
    EXPECT_EQ(state.rest_until() > world.network.now(), rests) << status;
  }
}

TEST(Grpc, AnErrorOfOursIsAnAnswerOfTrailersAlone) {
  GrpcWorld grpc;
  grpc.world.backends[0]->Refuse();
  grpc.end().stream->Reset();
  grpc.world.Run();
  const std::string answer = grpc.client->Take();
  EXPECT_TRUE(answer.starts_with("HTTP/1.1 200 OK\r\ncontent-type: application/grpc\r\n")) << answer;
  EXPECT_NE(answer.find("grpc-status: 14\r\n"), std::string::npos);
  EXPECT_NE(answer.find("grpc-message: backend b0: "), std::string::npos);
}

}  // namespace
}  // namespace penstock
