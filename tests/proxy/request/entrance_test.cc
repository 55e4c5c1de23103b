// Who a connection comes from, as a worker's sessions see it: PROXY headers, fields
// that name the client, paths that are spelt oddly, methods that are not for backends.
#include <gtest/gtest.h>

#include "tests/proxy/request/world.h"

namespace penstock {
namespace {

constexpr std::string_view kGet = "GET /a HTTP/1.1\r\nhost: api\r\n\r\n";

config::Listener BehindABalancer(std::vector<std::string> from = {}) {
  config::Listener listener;
  listener.proxy_protocol = config::ProxyProtocol::kRequired;
  listener.proxy_protocol_from = std::move(from);
  return listener;
}

TEST(Entrance, TheAnnouncedClientIsTheOneThatBackendsHearOf) {
  World world;
  *world.entrance = EntranceOf(BehindABalancer());
  world.backends[0]->answer = Ok("fine");
  const auto client = world.Connect();
  EXPECT_EQ(StatusOf(world.Ask(*client, "PROXY TCP4 1.2.3.4 10.0.0.1 4711 80\r\n" + std::string(kGet))), 200);
  EXPECT_NE(world.backends[0]->last_request.find("\r\nx-forwarded-for: 1.2.3.4\r\n"), std::string::npos)
      << world.backends[0]->last_request;
  EXPECT_EQ(StatusOf(world.Ask(*client, kGet)), 200);
}

TEST(Entrance, AConnectionWithoutAHeaderIsClosedAndCounted) {
  World world;
  *world.entrance = EntranceOf(BehindABalancer());
  const auto client = world.Connect();
  EXPECT_EQ(world.Ask(*client, kGet), "");
  EXPECT_TRUE(client->closed());
  EXPECT_EQ(world.metrics.proxy_header_faults[static_cast<size_t>(ProxyHeaderFault::kInvalid)].value(), 1);
  const auto silent = world.Connect();
  world.Wait(9 * kSecond);
  EXPECT_FALSE(silent->closed());
  world.Wait(2 * kSecond);
  EXPECT_TRUE(silent->closed());
  EXPECT_EQ(world.metrics.proxy_header_faults[static_cast<size_t>(ProxyHeaderFault::kTimeout)].value(), 1);
  EXPECT_EQ(world.backends[0]->requests, 0);
}

TEST(Entrance, OnlyThoseWhoMaySendAHeader) {
  World world;
  *world.entrance = EntranceOf(BehindABalancer({"192.0.2.0/24"}));
  const auto client = world.Connect();
  EXPECT_EQ(world.Ask(*client, "PROXY TCP4 1.2.3.4 10.0.0.1 4711 80\r\n" + std::string(kGet)), "");
  EXPECT_TRUE(client->closed());
  EXPECT_EQ(world.metrics.proxy_header_faults[static_cast<size_t>(ProxyHeaderFault::kUntrusted)].value(), 1);
  EXPECT_EQ(world.totals.connections, 0u);
  EXPECT_EQ(world.backends[0]->requests, 0);
}

TEST(Entrance, PathsAreSpeltInOneWayOrRefused) {
  for (const auto rule : {config::PathNormalization::kNormalize, config::PathNormalization::kStrict}) {
    config::Server server;
    server.path_normalization = rule;
    World world(1, {}, server);
    world.backends[0]->answer = Ok("fine");
    const auto client = world.Connect();
    const bool strict = rule == config::PathNormalization::kStrict;
    EXPECT_EQ(StatusOf(world.Ask(*client, "GET //x/../a?b HTTP/1.1\r\nhost: api\r\n\r\n")), strict ? 400 : 200);
    EXPECT_EQ(world.backends[0]->last_request.starts_with("GET /a?b HTTP/1.1\r\n"), !strict);
  }
}

TEST(Entrance, OptionsOfTheProxyItselfAreAnsweredHere) {
  World world;
  const auto client = world.Connect();
  const std::string answer = world.Ask(*client, "OPTIONS * HTTP/1.1\r\nhost: api\r\n\r\n");
  EXPECT_EQ(StatusOf(answer), 200);
  EXPECT_NE(answer.find("\r\nallow: GET, HEAD, POST"), std::string::npos) << answer;
  EXPECT_EQ(world.backends[0]->requests, 0);
}

TEST(Entrance, ConnectAndTraceAreNotAllowed) {
  for (const std::string_view request :
       {"CONNECT a:1 HTTP/1.1\r\nhost: a:1\r\n\r\n", "TRACE / HTTP/1.1\r\nhost: a\r\n\r\n"}) {
    World world;
    const auto client = world.Connect();
    const std::string answer = world.Ask(*client, request);
    EXPECT_EQ(StatusOf(answer), 405);
    EXPECT_NE(answer.find("\r\nallow: GET, "), std::string::npos) << answer;
    EXPECT_NE(answer.find("method_not_allowed"), std::string::npos);
    EXPECT_EQ(world.backends[0]->requests, 0);
  }
}

TEST(Entrance, ViaIsAddedBothWaysAndALoopIs508) {
  config::Server server;
  server.forwarding.via = "edge-1";
  World world(1, {}, server);
  world.backends[0]->answer = Ok("fine");
  const auto client = world.Connect();
  EXPECT_NE(world.Ask(*client, kGet).find("\r\nvia: 1.1 edge-1\r\n"), std::string::npos);
  EXPECT_NE(world.backends[0]->last_request.find("\r\nvia: 1.1 edge-1\r\n"), std::string::npos);
  const std::string answer = world.Ask(*client, "GET /a HTTP/1.1\r\nhost: api\r\nVia: 1.1 edge-1\r\n\r\n");
  EXPECT_EQ(StatusOf(answer), 508);
  EXPECT_NE(answer.find("loop_detected"), std::string::npos);
  EXPECT_EQ(world.backends[0]->requests, 1);
}

TEST(Entrance, ARequestIdOfAnybodyCanBeReplaced) {
  config::Server server;
  server.forwarding.preserve_external_request_id = false;
  World world(1, {}, server);
  world.backends[0]->answer = Ok("fine");
  const auto client = world.Connect();
  const std::string answer = world.Ask(*client, "GET /a HTTP/1.1\r\nhost: api\r\nx-request-id: mine\r\n\r\n");
  EXPECT_EQ(StatusOf(answer), 200);
  EXPECT_EQ(answer.find("mine"), std::string::npos);
  EXPECT_EQ(world.backends[0]->last_request.find("mine"), std::string::npos);
}

TEST(Entrance, APackedPromptIsNotUnpacked) {
  World world;
  const auto client = world.Connect();
  const std::string answer =
      world.Ask(*client, "POST /v1/completions HTTP/1.1\r\nhost: api\r\ncontent-encoding: gzip\r\n"
                         "content-length: 2\r\n\r\nxx");
  EXPECT_EQ(StatusOf(answer), 415);
  EXPECT_EQ(world.backends[0]->requests, 0);
}

TEST(Entrance, ABodyBehindAnotherRequestArrivesAsItWasSent) {
  World world;
  world.backends[0]->answer = Ok("fine");
  const auto client = world.Connect();
  const std::string body(20'000, 'b');
  world.Ask(*client, kGet);
  const std::string answers = world.Ask(*client, std::string(kGet) + Post(body, "/upload") + std::string(kGet) +
                                                     Post(body, "/upload"));
  EXPECT_EQ(world.backends[0]->requests, 5);
  EXPECT_TRUE(world.backends[0]->last_request.ends_with("\r\n\r\n" + body));
  EXPECT_EQ(StatusOf(answers), 200);
}

}  // namespace
}  // namespace penstock
