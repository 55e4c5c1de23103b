// Many requests with hedges, at backends that answer early, late, with errors, not at
// all, or break off, all by one seed. Whatever happens: a client has one answer of one
// backend, whoever lost is told to stop, and no more second tries are under way than
// the budget has places for.
#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "proxy/base/random.h"
#include "proxy/request/exchange.h"
#include "tests/proxy/request/world.h"
#include "tests/support/seeds.h"

namespace penstock {
namespace {

constexpr std::string_view kDone = "data: [DONE]\n\n";

std::string Token(std::string_view name) {
  return "data: {\"choices\":[{\"text\":\"" + std::string(name) + "\"}]}\n\n";
}

config::Pool Settings() {
  config::Pool pool;
  pool.hedge.enabled = true;
  pool.retry.budget = 0.2;
  pool.retry.budget_min = 2;
  pool.circuit_breaker.enabled = false;
  pool.timeouts.first_token = absl::Seconds(4);
  pool.timeouts.idle = absl::Seconds(4);
  return pool;
}

class HedgeSim {
 public:
  explicit HedgeSim(uint64_t seed) : random_(seed) {
    for (int i = 0; i < 40; ++i) world_.pool().first_tokens.Add(50 * kMillisecond, world_.network.now());
  }

  void Run() {
    for (int step = 0; step < 150; ++step) {
      Step();
      world_.Run();
      Check();
    }
    world_.Wait(30 * kSecond);
    for (const auto& client : clients_) CheckAnswer(client->heard, true);
    clients_.clear();
    world_.Run();
    EXPECT_EQ(world_.pool().budget.in_use(), 0u);
    for (const auto& backend : world_.backends) {
      for (const auto& conn : backend->conns) EXPECT_TRUE(conn->ended || Idle(*conn)) << "somebody still works";
    }
    EXPECT_GT(world_.pool().cells.hedges[static_cast<size_t>(HedgeResult::kWon)].value() +
                  world_.pool().cells.hedges[static_cast<size_t>(HedgeResult::kLost)].value(), 0);
  }

 private:
  using Conn = ScriptedBackend::Conn;

  void Step() {
    switch (random_.Below(6)) {
      case 0:
      case 1:
        if (clients_.size() < kClientsMax) {
          clients_.push_back(world_.Connect());
          clients_.back()->stream->Write(Post(R"({"model":"m","stream":true})"));
        }
        break;
      case 2:
        world_.Wait(random_.Below(400) * kMillisecond);
        break;
      case 3:
        if (!clients_.empty() && random_.Below(4) == 0) {
          clients_.erase(clients_.begin() + random_.Below(static_cast<uint32_t>(clients_.size())));
        }
        break;
      default:
        Answer();
    }
  }

  // Some backend goes on with some request.
  void Answer() {
    ScriptedBackend& backend = *world_.backends[random_.Below(kBackends)];
    std::vector<Conn*> busy;
    for (const auto& conn : backend.conns) {
      if (!conn->ended && !Idle(*conn)) busy.push_back(conn.get());
    }
    if (busy.empty()) return;
    Conn& conn = *busy[random_.Below(static_cast<uint32_t>(busy.size()))];
    int& said = said_[&conn];
    switch (random_.Below(12)) {
      case 0:
        conn.stream->Reset();
        conn.ended = true;
        return;
      case 1:
        if (said > 0) break;
        conn.stream->Write("HTTP/1.1 503 Oh\r\ncontent-length: 0\r\n\r\n");
        ++answered_[&conn];
        return;
      case 2:
        if (said > 0) break;
        conn.stream->Write("HTTP/1.1 429 Busy\r\nretry-after: 1\r\ncontent-length: 0\r\n\r\n");
        ++answered_[&conn];
        return;
      default: break;
    }
    if (said == 0) conn.stream->Write(kEventsHead);
    if (++said < 4) {
      conn.stream->Write(Chunk(Token(backend.address)));
    } else {
      conn.stream->Write(Chunk(kDone) + Chunk(""));
      said = 0;
      ++answered_[&conn];
    }
  }

  bool Idle(const Conn& conn) { return conn.requests <= answered_[&conn]; }

  void Check() {
    const RetryBudget& budget = world_.pool().budget;
    // Who began when more were active may end later.
    EXPECT_LE(budget.in_use(), std::max<uint32_t>(2, kClientsMax / 5));
    for (const auto& client : clients_) CheckAnswer(client->heard, false);
  }

  void CheckAnswer(std::string_view heard, bool over) {
    EXPECT_LE(Count(heard, "HTTP/1.1 "), 1u) << heard;
    EXPECT_LE(Count(heard, kDone), 1u) << heard;
    size_t names = 0;
    for (const auto& backend : world_.backends) names += Count(heard, Token(backend->address)) > 0 ? 1 : 0;
    EXPECT_LE(names, 1u) << heard;
    if (over) {
      EXPECT_NE(StatusOf(heard), 0);
    }
  }

  static constexpr uint32_t kBackends = 3, kClientsMax = 24;
  Random random_;
  World world_{kBackends, Settings()};
  std::vector<std::unique_ptr<Peer>> clients_;
  std::map<const Conn*, int> said_;       // Events of the answer in progress.
  std::map<const Conn*, int> answered_;   // Whole answers.
};

TEST(HedgeSim, OneAnswerOneWinnerAndNoMoreThanTheBudget) {
  ForEachSeed(200, [](uint64_t seed) { HedgeSim(seed).Run(); });
}

}  // namespace
}  // namespace penstock
