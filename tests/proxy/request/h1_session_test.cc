#include "proxy/request/h1_session.h"

#include <string>

#include <gtest/gtest.h>

#include "tests/proxy/request/world.h"
#include "tests/support/seeds.h"

namespace penstock {
namespace {

constexpr std::string_view kBody = R"({"model":"m"})";

TEST(H1Session, AnswersPipelinedRequestsInTheirOrder) {
  World world;
  const auto client = world.Connect();
  std::string all;
  for (const std::string name : {"a", "b", "c"}) all += Post("{\"model\":\"" + name + "\"}");
  EXPECT_EQ(world.Ask(*client, all), "");
  for (const std::string name : {"a", "b", "c"}) {
    EXPECT_TRUE(world.backends[0]->last_request.ends_with("{\"model\":\"" + name + "\"}"));
    world.backends[0]->Say(Ok("answer " + name));
    world.Run();
    EXPECT_TRUE(client->Take().ends_with("answer " + name));
  }
  EXPECT_EQ(world.backends[0]->requests, 3);
  EXPECT_EQ(world.backends[0]->conns.size(), 1u);
}

TEST(H1Session, AnswersRequestsHoweverTheirBytesAreCut) {
  ForEachSeed(50, [](uint64_t seed) {
    World world;
    world.network.link_options.deliver_bytes = 1 + seed % 40;
    world.network.link_options.seed = seed;
    world.backends[0]->answer = Ok("fine");
    const auto client = world.Connect();
    std::string all;
    for (int i = 0; i < 5; ++i) all += Post(kBody) + "GET /x HTTP/1.1\r\nhost: a\r\n\r\n";
    const std::string answers = world.Ask(*client, all);
    size_t count = 0;
    for (size_t at = 0; (at = answers.find("HTTP/1.1 200", at)) != std::string::npos; ++at) ++count;
    EXPECT_EQ(count, 10u);
    EXPECT_EQ(world.backends[0]->requests, 10);
  });
}

TEST(H1Session, KeepsOnlySoMuchOfWhatIsPipelined) {
  World world;
  world.network.link_options.window_bytes = 1024;
  const auto client = world.Connect();
  std::string all;
  size_t requests = 0;
  while (all.size() < 8 * H1Session::kPendingMax) {
    all += Post(kBody);
    ++requests;
  }
  world.Ask(*client, all);
  // What the session does not take waits at the client.
  EXPECT_GT(client->stream->buffered(), 5 * H1Session::kPendingMax);
  world.backends[0]->answer = Ok("fine");
  world.backends[0]->Say(Ok("fine"));
  world.Run();
  EXPECT_EQ(static_cast<size_t>(world.backends[0]->requests), requests);
  EXPECT_EQ(client->stream->buffered(), 0u);
}

TEST(H1Session, AnswersBytesThatAreNoRequestOnceAndCloses) {
  World world;
  const auto client = world.Connect();
  const std::string answer = world.Ask(*client, "NONSENSE\r\n\r\n" + Post(kBody));
  EXPECT_EQ(StatusOf(answer), 400);
  EXPECT_NE(answer.find("connection: close\r\n"), std::string::npos);
  EXPECT_EQ(answer.find("HTTP/1.1", 8), std::string::npos);
  EXPECT_TRUE(client->ended);
  EXPECT_EQ(world.metrics.protocol_errors.value(), 1);
  EXPECT_EQ(world.backends[0]->requests, 0);
}

TEST(H1Session, LingersForLateBytesAndThenGoes) {
  World world;
  const auto client = world.Connect();
  world.Ask(*client, "NONSENSE\r\n\r\n");
  EXPECT_EQ(world.Ask(*client, "more of it"), "");
  EXPECT_EQ(world.sessions->size(), 1u);
  world.Wait(3 * kSecond);
  EXPECT_EQ(world.sessions->size(), 0u);
}

TEST(H1Session, TimesOutFieldsThatDoNotArrive) {
  World world;
  const auto client = world.Connect();
  world.Ask(*client, "GET / HTTP/1.1\r\n");
  world.Wait(9 * kSecond);
  world.Ask(*client, "a: b\r\n");  // A byte now and then buys no time.
  EXPECT_FALSE(client->closed());
  world.Wait(2 * kSecond);
  EXPECT_EQ(StatusOf(client->Take()), 408);
  EXPECT_TRUE(client->ended);
}

TEST(H1Session, ClosesAConnectionThatIsIdleForTooLong) {
  World world;
  world.backends[0]->answer = Ok("fine");
  const auto client = world.Connect();
  world.Wait(70 * kSecond);
  EXPECT_EQ(StatusOf(world.Ask(*client, Post(kBody))), 200);
  world.Wait(74 * kSecond);
  EXPECT_FALSE(client->closed());
  world.Wait(2 * kSecond);
  EXPECT_TRUE(client->ended);
}

// A whole answer of which its client has taken little.
std::unique_ptr<Peer> SlowClient(World& world, const std::string& body) {
  world.network.link_options.window_bytes = 1000;
  world.backends[0]->answer = Ok(body);
  auto client = world.Connect();
  client->stream->Pause();
  client->stream->Write("GET /x HTTP/1.1\r\nHost: a\r\n\r\n");
  world.Run();
  EXPECT_EQ(world.totals.requests, 0u);
  return client;
}

TEST(H1Session, AnAnswerThatIsStillBeingTakenIsNotIdle) {
  const std::string body(100'000, 'x');
  for (const bool drain : {false, true}) {
    World world;
    const auto client = SlowClient(world, body);
    if (drain) {
      world.context->draining = true;
      world.sessions->Drain(0);
    } else {
      world.Wait(76 * kSecond);    // keep_alive has passed.
    }
    world.Wait(50 * kSecond);
    EXPECT_EQ(world.sessions->size(), 1u);
    client->stream->Resume();
    world.Run();
    EXPECT_TRUE(client->Take().ends_with(body)) << drain;
    EXPECT_TRUE(client->ended);
  }
}

TEST(H1Session, AnAnswerThatNobodyTakesIsCutAfterThePoolsTime) {
  config::Pool pool;
  pool.timeouts.idle = absl::Seconds(10);
  World world(1, pool);
  const auto client = SlowClient(world, std::string(100'000, 'x'));
  world.sessions->CloseIdle(0);
  world.Wait(9 * kSecond);
  EXPECT_EQ(world.totals.connections, 1u);
  world.Wait(5 * kSecond);
  EXPECT_EQ(world.totals.connections, 0u);
  // By a reset: to whoever reads until the end, a clean one would say that this is all.
  client->stream->Resume();
  world.Run();
  EXPECT_TRUE(client->reset && !client->ended);
}

TEST(H1Session, RefusesConnectionsBeyondTheLimit) {
  config::Server server;
  server.limits.connections = 2;
  World world(1, {}, server);
  auto first = world.Connect();
  const auto second = world.Connect();
  const auto third = world.Connect();
  EXPECT_TRUE(third->closed());
  EXPECT_FALSE(second->closed());
  EXPECT_EQ(world.metrics.client_connections_refused.value(), 1);
  first.reset();
  world.Run();
  EXPECT_FALSE(world.Connect()->closed());
}

TEST(H1Session, DrainsAtOnceWhereNothingIsUnderWay) {
  World world;
  const auto idle = world.Connect();
  const auto busy = world.Connect();
  world.Ask(*busy, Post(kBody));
  world.context->draining = true;
  world.sessions->CloseIdle(0);
  world.Run();
  EXPECT_TRUE(idle->ended);
  EXPECT_EQ(world.sessions->busy(), 1u);
  world.backends[0]->Say(Ok("fine"));
  world.Run();
  const std::string answer = busy->Take();
  EXPECT_EQ(StatusOf(answer), 200);
  EXPECT_NE(answer.find("connection: close\r\n"), std::string::npos);
  EXPECT_TRUE(busy->ended);
  EXPECT_TRUE(world.Connect()->closed());
}

TEST(H1Session, SendsAnAnswerToTheEndBeforeItCloses) {
  World world;
  world.network.link_options.window_bytes = 1024;
  const auto client = world.Connect();
  const std::string body(200'000, 'x');
  world.backends[0]->answer = Ok(body);
  client->stream->Pause();
  world.Ask(*client, Post(kBody));
  world.context->draining = true;
  world.sessions->CloseIdle(0);
  world.Run();
  client->stream->Resume();
  world.Run();
  EXPECT_TRUE(client->heard.ends_with(body)) << client->heard.size();
  EXPECT_TRUE(client->ended);
}

TEST(H1Session, AnswersOnceEvenWhenTheBodyBehindAnEarlyAnswerIsBad) {
  World world;
  for (const bool at_once : {true, false}) {
    const auto client = world.Connect();
    std::string answer = at_once ? "" : world.Ask(*client, "POST /v1/completions HTTP/1.1\r\nhost: a\r\n");
    answer += world.Ask(*client, std::string(at_once ? "POST /v1/completions HTTP/1.1\r\nhost: a\r\n" : "") +
                                     "content-encoding: gzip\r\ntransfer-encoding: chunked\r\n\r\nZZ\r\n");
    EXPECT_EQ(StatusOf(answer), 415);
    EXPECT_EQ(answer.find("HTTP/1.1", 1), std::string::npos) << answer;
    world.Wait(10 * kSecond);
    EXPECT_TRUE(client->closed());
  }
}

TEST(H1Session, ABodyBehindBytesThatMightHaveBeenAPrefaceArrivesWhole) {
  World world;
  const auto client = world.Connect();
  world.backends[0]->answer = Ok("kept");
  world.Ask(*client, Post("warm", "/v1/files"));
  const auto other = world.Connect();
  const std::string body(5000, 'b');
  world.Ask(*other, "P");
  EXPECT_TRUE(world.Ask(*other, Post(body, "/v1/files").substr(1)).ends_with("kept"));
  EXPECT_TRUE(world.backends[0]->last_request.ends_with(body));
  EXPECT_EQ(world.backends[0]->conns.size(), 1u);
}

TEST(H1Session, TellsOfAModelWithALongName) {
  config::Pool pool;
  const std::string name(300, 'm');
  pool.models = {{name, {}}};
  World world(1, pool);
  const auto client = world.Connect();
  EXPECT_TRUE(world.Ask(*client, "GET /v1/models/" + name + " HTTP/1.1\r\nhost: a\r\n\r\n").find(name) !=
              std::string::npos);
}

TEST(H1Session, GoesOnAfterAnAnswerOfItsOwn) {
  config::Pool pool;
  pool.models = {{"mine", {}}};
  World world(1, pool);
  const auto client = world.Connect();
  for (int i = 0; i < 3; ++i) {
    const std::string list = world.Ask(*client, "GET /v1/models HTTP/1.1\r\nhost: a\r\n\r\n");
    EXPECT_EQ(StatusOf(list), 200);
    EXPECT_EQ(list.find("connection: close"), std::string::npos);
    EXPECT_FALSE(client->closed());
    EXPECT_EQ(StatusOf(world.Ask(*client, "GET /v1/models/no HTTP/1.1\r\nhost: a\r\n\r\n")), 404);
    EXPECT_EQ(StatusOf(world.Ask(*client, "GET /v1/models/mine HTTP/1.1\r\nhost: a\r\n\r\n")), 200);
  }
  EXPECT_FALSE(client->closed());
}

TEST(H1Session, OfAnOldClientClosesAfterOneAnswer) {
  World world;
  world.backends[0]->answer = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + Chunk("fine") + Chunk("");
  const auto client = world.Connect();
  const std::string answer = world.Ask(*client, "GET /x HTTP/1.0\r\nhost: a\r\n\r\n");
  EXPECT_EQ(answer.find("chunked"), std::string::npos);
  EXPECT_TRUE(answer.ends_with("\r\n\r\nfine"));
  EXPECT_TRUE(client->ended);
}

TEST(SessionSet, CancelsEverythingWhenItCloses) {
  World world;
  std::vector<std::unique_ptr<Peer>> clients;
  for (int i = 0; i < 5; ++i) {
    clients.push_back(world.Connect());
    world.Ask(*clients.back(), Post(kBody));
  }
  EXPECT_EQ(world.sessions->busy(), 5u);
  world.sessions->CloseAll();
  world.Run();
  EXPECT_EQ(world.totals.requests, 0u);
  for (const auto& conn : world.backends[0]->conns) EXPECT_TRUE(conn->ended);
  for (const auto& client : clients) EXPECT_TRUE(client->closed());
}

}  // namespace
}  // namespace penstock
