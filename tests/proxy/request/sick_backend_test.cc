// Backends that answer what no backend should: what the client gets of it, and what is
// held against them.
#include <string>

#include <gtest/gtest.h>

#include "proxy/base/random.h"
#include "proxy/request/exchange.h"
#include "tests/proxy/request/world.h"

namespace penstock {
namespace {

constexpr std::string_view kBody = R"({"model":"m"})";
constexpr std::string_view kStream = R"({"model":"m","stream":true})";
constexpr std::string_view kToken = "data: {\"choices\":[{\"text\":\"a\"}]}\n\n";
constexpr std::string_view kDone = "data: [DONE]\n\n";

std::string Events(std::string_view bytes) {
  return std::string(kEventsHead) + Chunk(bytes) + Chunk("");
}
bool Blamed(World& world, size_t index) {
  return StateOf(world, index).ttft(world.network.now()).seconds >= 5;
}
template <typename Histogram>
int64_t Seen(const Histogram& histogram) {
  int64_t seen = 0;
  for (size_t i = 0; i < Histogram::kBuckets; ++i) seen += histogram.bucket(i);
  return seen;
}
BreakerState BreakerOf(World& world, size_t index) { return StateOf(world, index).breaker.view().state; }

TEST(SickBackend, UsageThatIsMissingOrALieIsPassedOnAndBelievedByNobody) {
  for (const char* const usage : {"{}", R"({"prompt_tokens":-5,"completion_tokens":-1})", "null", "[]",
                                  R"({"completion_tokens":1e12,"total_tokens":NaN})", R"({"total_tokens":"many"})"}) {
    World world;
    const std::string events = std::string(kToken) + "data: {\"choices\":[],\"usage\":" + usage + "}\n\n" +
                               std::string(kDone);
    world.backends[0]->answer = Events(events);
    const auto client = world.Connect();
    EXPECT_TRUE(world.Ask(*client, Post(kStream)).ends_with(Chunk(events) + Chunk(""))) << usage;
    EXPECT_EQ(Seen(world.pool().cells.ttft), 1) << usage;
    EXPECT_FALSE(Blamed(world, 0)) << usage;
  }
}

TEST(SickBackend, AStreamThatBeginsWithAnErrorIsAFailureUnlessItBlamesTheClient) {
  struct Case {
    const char* events;
    bool fault;
  };
  for (const Case& one : {
           Case{"data: {\"error\":{\"message\":\"out of memory\",\"type\":\"server_error\"}}\n\n", true},
           Case{"data: {\"error\":{\"message\":\"died\",\"type\":\"InternalServerError\",\"code\":500}}\n\n", true},
           Case{"data: {\"error\":{\"message\":\"slow down\",\"code\":429}}\n\n", true},
           Case{"event: error\ndata: oh\n\n", true},
           Case{"data: {\"choices\":[{\"text\":\"\"}]}\n\ndata: {\"error\":\"gone\"}\n\n", true},
           Case{"data: {\"error\":{\"message\":\"\\\"code\\\": 400 it says\",\"code\":500}}\n\n", true},
           Case{"data: {\"error\":{\"message\":\"too long\",\"type\":\"BadRequestError\",\"code\":400}}\n\n", false},
           Case{"data: {\"error\":{\"message\":\"too long\",\"type\":\"invalid_request_error\"}}\n\n", false},
           Case{"data: {\"error\":{\"message\":\"no\",\"code\" : 422}}\n\n", false},
           // One that comes later has broken nothing that a breaker could spare others.
           Case{"data: {\"choices\":[{\"text\":\"a\"}]}\n\ndata: {\"error\":{\"code\":500}}\n\n", false},
           Case{"data: {\"error\":null,\"choices\":[{\"text\":\"a\"}]}\n\n", false},
       }) {
    for (const bool counts : {true, false}) {
      config::Pool pool;
      pool.circuit_breaker.error_events = counts;
      World world(1, pool);
      world.backends[0]->answer = Events(one.events);
      const auto client = world.Connect();
      const std::string answer = world.Ask(*client, Post(kStream));
      EXPECT_EQ(StatusOf(answer), 200) << one.events;
      EXPECT_TRUE(answer.ends_with(Chunk(one.events) + Chunk(""))) << answer;  // As it came.
      EXPECT_EQ(Blamed(world, 0), one.fault && counts) << one.events;
    }
  }
}

TEST(SickBackend, AProbeThatBeginsWithAnErrorIsNoSuccess) {
  config::Pool pool;
  pool.circuit_breaker.panic_threshold = 0;
  pool.circuit_breaker.half_open_successes = 1;
  World world(1, pool);
  StateOf(world, 0).breaker.Open(BreakerSettings(pool.circuit_breaker), BreakerCause::kConsecutive,
                                 world.network.now(), 0);
  world.Wait(2 * kSecond);
  world.backends[0]->answer = Events("data: {\"error\":{\"code\":500}}\n\n");
  const auto client = world.Connect();
  EXPECT_EQ(StatusOf(world.Ask(*client, Post(kStream))), 200);
  EXPECT_EQ(BreakerOf(world, 0), BreakerState::kOpen);
}

// It never has a token, so nothing in it comes before the first one.
TEST(SickBackend, AFeedThatTellsOfAnErrorSaysNothingOfItsBackend) {
  World world;
  world.backends[0]->answer = Events("data: news\n\nevent: error\ndata: oh\n\n");
  const auto client = world.Connect();
  EXPECT_EQ(StatusOf(world.Ask(*client, "GET /feed HTTP/1.1\r\nhost: a\r\n\r\n")), 200);
  EXPECT_FALSE(Blamed(world, 0));
}

TEST(SickBackend, ErrorsOfManyOrOfAllItsRequestsTakeOneOutAndAFewDoNot) {
  struct Case {
    double share;
    bool taken_out;
  };
  for (const char* const status : {"500", "502", "503", "504"}) {
    for (const Case& one : {Case{0.1, false}, Case{0.6, true}, Case{1, true}}) {
      World world(4);
      Random random(7);
      const std::string bad = "HTTP/1.1 " + std::string(status) + " Oh\r\ncontent-length: 0\r\n\r\n";
      for (const auto& backend : world.backends) backend->answer = Ok("{}");
      const auto client = world.Connect();
      for (int i = 0; i < 400; ++i) {
        world.backends[0]->answer = random.Unit() < one.share ? bad : Ok("{}");
        world.Ask(*client, Post(kBody));
        world.Wait(10 * kMillisecond);
        client->Take();
      }
      EXPECT_EQ(StateOf(world, 0).breaker.open_count(BreakerCause::kConsecutive) +
                        StateOf(world, 0).breaker.open_count(BreakerCause::kRate) > 0, one.taken_out)
          << status << " " << one.share;
      for (size_t other = 1; other < 4; ++other) {
        EXPECT_EQ(BreakerOf(world, other), BreakerState::kClosed);
        EXPECT_GE(world.backends[other]->requests, 90) << status << " " << one.share;
      }
      if (one.taken_out) {
        EXPECT_LT(world.backends[0]->requests, 60) << status << " " << one.share;
      }
    }
  }
}

TEST(SickBackend, HoweverItSaysWhenToComeBackItRestsAShortWhileAndIsNotBlamed) {
  struct Case {
    const char* retry_after;
    MonoTime rest;
  };
  for (const Case& one : {Case{"0", kSecond}, Case{"0.2", 200 * kMillisecond}, Case{"3", 3 * kSecond},
                          Case{"1000000000", 5 * kSecond}, Case{"-1", kSecond}, Case{"soon", kSecond},
                          Case{"nan", kSecond}, Case{"inf", 5 * kSecond}, Case{"1e300", 5 * kSecond}, Case{"", kSecond},
                          Case{"Wed, 21 Oct 2099 07:28:00 GMT", kSecond},
                          Case{"99999999999999999999999999999999999999", 5 * kSecond}}) {
    for (const char* const status : {"429", "503"}) {
      World world(2);
      for (const auto& backend : world.backends) {
        backend->answer = "HTTP/1.1 " + std::string(status) + " Busy\r\nretry-after: " + one.retry_after +
                          "\r\ncontent-length: 0\r\n\r\n";
      }
      const auto client = world.Connect();
      world.Ask(*client, Post(kBody));
      world.backends[0]->answer = world.backends[1]->answer = Ok("{}");
      EXPECT_EQ(client->heard, "");  // Both are busy: it waits.
      world.Wait(one.rest - 100 * kMillisecond);
      EXPECT_EQ(client->heard, "") << one.retry_after;
      world.Wait(300 * kMillisecond);
      EXPECT_EQ(StatusOf(client->Take()), 200) << one.retry_after;
      for (size_t i = 0; i < 2; ++i) {
        EXPECT_EQ(BreakerOf(world, i), BreakerState::kClosed);
        EXPECT_FALSE(Blamed(world, i));
      }
    }
  }
}

TEST(SickBackend, OneThatClosesAfterEachAnswerServesAllTheSame) {
  World world;
  world.backends[0]->answer = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}";
  world.backends[0]->close_after = true;
  const auto client = world.Connect();
  for (int i = 0; i < 50; ++i) EXPECT_EQ(StatusOf(world.Ask(*client, Post(kBody))), 200);
  EXPECT_EQ(world.backends[0]->conns.size(), 50u);
  EXPECT_EQ(world.pool().cells.retries[static_cast<size_t>(RetryReason::kReset)].value(), 0);
  EXPECT_EQ(BreakerOf(world, 0), BreakerState::kClosed);
}

// An answer of which each byte takes a second is one that moves, and still has an end.
TEST(SickBackend, OneThatSendsAByteASecondForEverIsLeftAtTheTotal) {
  for (const bool stream : {false, true}) {
    config::Pool pool;
    pool.timeouts.total = absl::Seconds(30);
    World world(1, pool);
    const auto client = world.Connect();
    world.Ask(*client, Post(stream ? kStream : kBody));
    world.backends[0]->Say(stream ? std::string(kEventsHead) + Chunk(kToken)
                                  : "HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n");
    for (int second = 0; second < 29; ++second) {
      world.backends[0]->Say(stream ? Chunk("x") : "x");
      world.Wait(kSecond);
      EXPECT_FALSE(client->closed()) << second;
    }
    world.Wait(2 * kSecond);
    EXPECT_TRUE(client->reset);
    EXPECT_TRUE(world.backends[0]->conns[0]->ended);
    EXPECT_EQ(world.pool().cells.timeouts[static_cast<size_t>(TimeoutKind::kTotal)].value(), 1);
    if (stream) {
      EXPECT_NE(client->heard.find("\"total_timeout\""), std::string::npos);
    }
  }
}

TEST(SickBackend, WhenAllAreGoneTheAnswerComesAtOnceAndWhenAllAreBackEachHasItsShare) {
  World world(3);
  const auto client = world.Connect();
  const auto set = [&](Health health) {
    for (size_t i = 0; i < 3; ++i) StateOf(world, i).SetHealth(health, world.network.now());
    world.Wait(20 * kMillisecond);
  };
  for (const auto& backend : world.backends) backend->answer = Ok("{}");
  set(Health::kDown);
  for (int i = 0; i < 50; ++i) EXPECT_EQ(StatusOf(world.Ask(*client, Post(kBody))), 503);
  EXPECT_EQ(world.backends[0]->requests + world.backends[1]->requests + world.backends[2]->requests, 0);
  set(Health::kHealthy);
  for (int i = 0; i < 60; ++i) EXPECT_EQ(StatusOf(world.Ask(*client, Post(kBody))), 200);
  for (const auto& backend : world.backends) EXPECT_EQ(backend->requests, 20);
}

}  // namespace
}  // namespace penstock
