// Sessions, exchanges and connections to backends of one worker, in memory with
// told time: what a client sees, and a seeded run in which clients and backends
// do everything at once and after which nothing is left.
#include "proxy/request/session.h"

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "proxy/http/client.h"
#include "proxy/http/server.h"
#include "proxy/request/exchange.h"
#include "tests/proxy/backends/worlds.h"
#include "tests/support/manual_loop.h"
#include "tests/support/seeds.h"

namespace penstock {
namespace {

constexpr size_t kBackends = 3;

config::Pool PoolOfTest() {
  config::Pool pool;
  pool.models.push_back({"wren", {}});
  pool.timeouts.first_token = absl::Seconds(5);
  pool.timeouts.response = absl::Seconds(5);
  pool.timeouts.idle = absl::Seconds(5);
  pool.queue = {.max = 4, .wait = absl::Seconds(3)};
  return pool;
}

// One worker's data path before backends that answer as the test says.
class Proxy {
 public:
  using Script = std::function<void(const HttpRequest&, std::unique_ptr<HttpAnswer>)>;

  explicit Proxy(Script script, uint64_t seed = 1)
      : script_(std::move(script)), fleet_(FleetOf(PoolOfTest(), kBackends)) {
    network.link_options.seed = seed;
    for (const auto& backend : fleet_->pools[0]->backends) {
      backends_.push_back(*HttpServer::Listen(
          backend_loop_, *Address::Parse(backend->authority), {},
          [this](HttpRequest request, std::unique_ptr<HttpAnswer> answer) {
            script_(request, std::move(answer));
          }));
    }
    fleet_->pools[0]->weights = 1;  // Known, and all the same: answers may be kept.
    ResultCacheSettings cache;
    cache.name = "answers";
    cache.seed = seed;
    context.snapshot = std::make_shared<Snapshot>(fleet_);
    context.snapshot->pools.push_back(std::make_unique<PoolContext>(
        fleet_->pools[0], 0, seed, metrics_, *lb::MakePolicy("weighted_score", {}),
        std::make_shared<ResultCache>(cache), 0));
    listener_ = *loop_.Listen(address, [this](std::unique_ptr<Stream> stream) {
      sessions.Accept(std::move(stream), std::make_shared<const Entrance>(Entrance{.debug_headers = true}));
    });
  }
  ~Proxy() { sessions.CloseAll(); }

  std::unique_ptr<Fetch> Ask(std::string body, Fetch::Callback done) {
    FetchOptions options;
    options.method = "POST";
    options.target = "/v1/chat/completions";
    options.authority = "proxy";
    options.body = std::move(body);
    options.timeout = 3600 * kSecond;
    return Fetch::Start(client_loop.dialer(), client_loop.deadlines(), address, std::move(options),
                        std::move(done));
  }
  const std::string& BackendAddress(size_t index) const {
    return fleet_->pools[0]->backends[index]->authority;
  }
  // What is still in use; "" when a client that left and its request left nothing.
  std::string Left() const {
    const std::string left = fmt::format(
        "{} sessions, {} orphans, {} connections, {} requests, {} bytes, {} waiting", sessions.size(),
        context.orphans.size(), totals.connections.load(), totals.requests.load(),
        totals.buffered_bytes.load(), context.snapshot->pools[0]->queue.size());
    return left == "0 sessions, 0 orphans, 0 connections, 0 requests, 0 bytes, 0 waiting" ? "" : left;
  }

  MemoryNetwork network;
  const Address address = *Address::Parse("10.0.0.1:80");
  ManualLoop client_loop{network};

 private:
  Script script_;
  const std::shared_ptr<const Fleet> fleet_;
  ManualLoop loop_{network};
  ManualLoop backend_loop_{network};
  WorkerMetrics metrics_;
  std::vector<std::unique_ptr<HttpServer>> backends_;

 public:
  ProcessTotals totals;
  WorkerContext context{loop_, 0, 1, totals, metrics_, nullptr, 16};
  SessionSet sessions{context};

 private:
  std::unique_ptr<Listener> listener_;
};

std::string Question(int number, bool deterministic = false, bool stream = false) {
  return fmt::format(R"({{"model":"wren","seed":{},"temperature":{},"stream":{}}})", number,
                     deterministic ? 0 : 1, stream);
}

std::string Answer(std::string_view question) {
  return fmt::format(R"({{"answer to":{}}})", question);
}

void Echo(const HttpRequest& request, std::unique_ptr<HttpAnswer> answer) {
  answer->Send(200, "application/json", Answer(request.body));
}

TEST(Session, RelaysARequestAndItsAnswer) {
  Proxy proxy(Echo);
  absl::StatusOr<FetchResult> got = absl::UnknownError("no answer");
  const auto fetch = proxy.Ask(Question(7), [&](auto result) { got = std::move(result); });
  proxy.network.RunUntilIdle();
  ASSERT_TRUE(got.ok()) << got.status();
  EXPECT_EQ(got->status, 200);
  EXPECT_EQ(got->body, Answer(Question(7)));
  proxy.network.Advance(kSecond);
  EXPECT_EQ(proxy.Left(), "");
}

TEST(Session, AClientThatLeavesLeavesNothingBehind) {
  std::vector<std::unique_ptr<HttpAnswer>> held;
  Proxy proxy([&](const HttpRequest&, std::unique_ptr<HttpAnswer> answer) {
    held.push_back(std::move(answer));
  });
  auto fetch = proxy.Ask(Question(7), [](auto) {});
  proxy.network.RunUntilIdle();
  ASSERT_EQ(held.size(), 1u);
  EXPECT_NE(proxy.Left(), "");
  fetch.reset();
  proxy.network.RunUntilIdle();
  EXPECT_EQ(proxy.Left(), "");
  EXPECT_TRUE(held[0]->client_gone());
}

TEST(Session, ABackendThatSaysNothingIsATimeoutInOpenAiShape) {
  std::vector<std::unique_ptr<HttpAnswer>> held;
  Proxy proxy([&](const HttpRequest&, std::unique_ptr<HttpAnswer> answer) {
    held.push_back(std::move(answer));
  });
  absl::StatusOr<FetchResult> got = absl::UnknownError("no answer");
  const auto fetch = proxy.Ask(Question(7), [&](auto result) { got = std::move(result); });
  proxy.network.Advance(60 * kSecond);
  ASSERT_TRUE(got.ok()) << got.status();
  EXPECT_EQ(got->status, 504);
  EXPECT_EQ(nlohmann::json::parse(got->body)["error"]["code"], "backend_timeout");
}

// Clients ask, repeat what others ask, and leave; backends answer whole, in
// events, late, never, busy, or break off; connections are reset. Then:
//  - who stayed has an answer: its own and whole, or an error in OpenAI shape, or a cut
//  - nothing is left of anybody
class TrafficSim {
 public:
  explicit TrafficSim(uint64_t seed)
      : random_(seed),
        proxy_([this](const HttpRequest& request, std::unique_ptr<HttpAnswer> answer) {
          OnRequest(request, std::move(answer));
        }, seed) {
    proxy_.network.link_options.deliver_bytes = 1 + random_.Below(400);
  }

  void Run() {
    for (int step = 0; step < 60; ++step) Step();
    proxy_.network.Advance(60 * kSecond);
    for (const auto& client : clients_) {
      EXPECT_TRUE(client->fetch == nullptr || client->done) << client->question;
    }
    clients_.clear();
    held_.clear();
    proxy_.network.Advance(60 * kSecond);
    EXPECT_EQ(proxy_.Left(), "");
  }

 private:
  struct Client {
    std::string question;
    std::unique_ptr<Fetch> fetch;
    bool done = false;
  };

  void Step() {
    switch (random_.Below(8)) {
      case 0:
        if (!clients_.empty()) Any(clients_)->fetch.reset();
        break;
      case 1:
        proxy_.network.Advance(random_.Below(3000) * kMillisecond);
        break;
      case 2:
        if (random_.Below(4) == 0) {
          proxy_.network.ResetAllTo(proxy_.BackendAddress(random_.Below(kBackends)));
        }
        break;
      case 3:
        GoOn();
        break;
      default:
        AskOne();
    }
    if (random_.Below(2) == 0) proxy_.network.RunUntilIdle();
  }

  void AskOne() {
    auto client = std::make_unique<Client>();
    client->question = Question(static_cast<int>(random_.Below(6)), random_.Below(2) == 0,
                                random_.Below(2) == 0);
    client->fetch = proxy_.Ask(client->question, [raw = client.get()](auto result) {
      raw->done = true;
      Check(*raw, result);
    });
    clients_.push_back(std::move(client));
  }

  static void Check(const Client& client, const absl::StatusOr<FetchResult>& result) {
    if (!result.ok()) return;  // Cut: seen not to be whole.
    const std::string& body = result->body;
    if (result->status != 200) {
      EXPECT_TRUE(nlohmann::json::parse(body).contains("error")) << body;
    } else if (!body.starts_with("data:")) {
      EXPECT_EQ(body, Answer(client.question));
    } else {
      EXPECT_TRUE(body.ends_with("data: [DONE]\n\n")) << body;
      EXPECT_NE(body.find(Answer(client.question)), std::string::npos) << body;
    }
  }

  void OnRequest(const HttpRequest& request, std::unique_ptr<HttpAnswer> answer) {
    const bool stream = request.body.find("\"stream\":true") != std::string::npos;
    switch (random_.Below(10)) {
      case 0:
        return answer->Send(429, "application/json", R"({"error":{"message":"full"}})", {{"retry-after", "1"}});
      case 1:
        return answer->Send(random_.Below(2) == 0 ? 500 : 503, "application/json",
                            R"({"error":{"message":"oh"}})");
      case 2:
        return answer->Cut();
      case 3:
        held_.push_back({std::move(answer), "", 0});
        return;
      default:
        if (!stream) return Echo(request, std::move(answer));
        answer->Begin(200, "text/event-stream");
        held_.push_back({std::move(answer), Answer(request.body), 1});
    }
  }

  // Some held answer goes on: an event, its end, or a cut.
  void GoOn() {
    if (held_.empty()) return;
    Held& held = Any(held_);
    if (held.text.empty()) return;
    if (held.events++ == 1) {
      held.answer->Write(fmt::format(
          "data: {{\"choices\":[{{\"delta\":{{\"content\":\"a\"}}}}],\"of\":{}}}\n\n", held.text));
    } else if (random_.Below(5) == 0) {
      held.answer->Cut();
      held.text.clear();
    } else {
      held.answer->Write("data: [DONE]\n\n");
      held.answer->End();
      held.text.clear();
    }
  }

  template <typename T>
  T& Any(std::vector<T>& of) {
    return of[random_.Below(static_cast<uint32_t>(of.size()))];
  }

  struct Held {
    std::unique_ptr<HttpAnswer> answer;
    std::string text;
    int events = 0;
  };

  Random random_;
  std::vector<Held> held_;
  Proxy proxy_;
  std::vector<std::unique_ptr<Client>> clients_;
};

TEST(Session, WhateverClientsAndBackendsDoNothingIsLeftOfIt) {
  ForEachSeed(400, [](uint64_t seed) { TrafficSim(seed).Run(); });
}

}  // namespace
}  // namespace penstock
