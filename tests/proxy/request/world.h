// One worker's sessions and exchanges, with clients and backends that do what a
// test says: bytes in memory, time that is told.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "proxy/request/session.h"
#include "tests/proxy/backends/worlds.h"
#include "tests/proxy/request/http_text.h"
#include "tests/support/manual_loop.h"

namespace penstock {

// The other end of a connection: keeps what it hears.
struct Peer final : StreamReceiver {
  explicit Peer(std::unique_ptr<Stream> stream_in) : stream(std::move(stream_in)) {
    stream->SetReceiver(this);
    stream->Resume();
  }
  void OnData(std::string_view data) override { heard += data; }
  void OnStreamEnd(const absl::Status& status) override { (status.ok() ? ended : reset) = true; }
  void OnWritable() override {}
  std::string Take() { return std::exchange(heard, {}); }

  std::unique_ptr<Stream> stream;
  std::string heard;
  bool ended = false;
  bool reset = false;
  bool closed() const { return ended || reset; }
};

// Answers each whole request with `answer` at once; empty: leaves that to the test.
struct ScriptedBackend {
  struct Conn final : StreamReceiver {
    Conn(ScriptedBackend& backend_in, std::unique_ptr<Stream> stream_in)
        : backend(backend_in), stream(std::move(stream_in)) {
      stream->SetReceiver(this);
      stream->Resume();
    }
    void OnData(std::string_view data) override {
      heard += data;
      while (const size_t size = WholeMessage(heard)) {
        ++requests, ++backend.requests;
        backend.last_request.assign(heard, 0, size);
        heard.erase(0, size);
        if (!backend.answer.empty()) stream->Write(backend.answer);
        if (backend.close_after) stream->Shutdown();
      }
    }
    void OnStreamEnd(const absl::Status&) override { ended = true; }
    void OnWritable() override {}
    ScriptedBackend& backend;
    std::unique_ptr<Stream> stream;
    std::string heard;
    int requests = 0;
    bool ended = false;
  };

  ScriptedBackend(ManualLoop& loop, const std::string& address_in) : address(address_in) {
    listener = *loop.Listen(*Address::Parse(address), [this](std::unique_ptr<Stream> stream) {
      conns.push_back(std::make_unique<Conn>(*this, std::move(stream)));
    });
  }
  void Say(std::string_view bytes) { conns.back()->stream->Write(bytes); }
  void Reset() {
    conns.back()->stream->Reset();
    conns.back()->ended = true;
  }
  void Refuse() { listener.reset(); }  // New connections are refused.

  const std::string address;
  std::unique_ptr<Listener> listener;
  std::vector<std::unique_ptr<Conn>> conns;
  std::string answer;
  std::string last_request;
  int requests = 0;
  bool close_after = false;
};

class World {
 public:
  // The settings of its only pool and of the server.
  explicit World(size_t backend_count = 1, config::Pool pool = {}, config::Server server = {},
                 const ResultCacheSettings* cache_settings = nullptr) {
    pool.load_balancing.algorithm = "round_robin";
    auto config = std::make_shared<config::Config>(*FleetOf(std::move(pool), backend_count)->config);
    config->server = std::move(server);
    fleet = MakeFleet(config, nullptr);
    if (cache_settings != nullptr) cache = std::make_shared<ResultCache>(*cache_settings);
    for (const auto& backend : fleet->pools[0]->backends) {
      backends.push_back(std::make_unique<ScriptedBackend>(outside, backend->authority));
    }
    context = std::make_unique<WorkerContext>(inside, 0, 1, totals, metrics, nullptr, 16);
    context->snapshot = MakeSnapshot();
    sessions = std::make_unique<SessionSet>(*context);
    listener = *inside.Listen(*Address::Parse("127.0.0.1:8080"), [this](std::unique_ptr<Stream> stream) {
      sessions->Accept(std::move(stream), entrance);
    });
  }
  ~World() {
    if (context == nullptr) return;
    sessions->CloseAll();
    network.RunUntilIdle();
    EXPECT_EQ(totals.requests + totals.buffered_bytes, 0u);
    EXPECT_EQ(totals.connections, 0u);
    EXPECT_EQ(table().active(), 0u);
    EXPECT_EQ(pool().budget.active(), 0u);
  }

  void End() { listener.reset(), sessions.reset(), context.reset(); }  // As a worker does.

  std::shared_ptr<Snapshot> MakeSnapshot() {
    auto snapshot = std::make_shared<Snapshot>(fleet);
    const auto& state = fleet->pools[0];
    snapshot->pools.push_back(std::make_unique<PoolContext>(
        state, 0, 1, metrics, *lb::MakePolicy("round_robin", {}), cache, 0));
    return snapshot;
  }
  PoolContext& pool() { return *context->snapshot->pools[0]; }
  PoolTable& table() { return pool().table; }

  std::unique_ptr<Peer> Connect() {
    std::unique_ptr<Peer> client;
    const auto dial = outside.dialer().Dial(
        *Address::Parse("127.0.0.1:8080"), kSecond,
        [&](absl::StatusOr<std::unique_ptr<Stream>> stream) {
          client = std::make_unique<Peer>(*std::move(stream));
        });
    Run();
    return client;
  }
  // Sends and lets everything happen that can happen now; what came back.
  std::string Ask(Peer& client, std::string_view bytes) {
    client.stream->Write(bytes);
    Run();
    return client.Take();
  }
  void Run() { network.RunUntilIdle(); }
  void Wait(MonoTime time) { network.Advance(time); }

  MemoryNetwork network;
  ManualLoop inside{network};
  ManualLoop outside{network};
  ProcessTotals totals;
  WorkerMetrics metrics;
  std::shared_ptr<const Fleet> fleet;
  std::shared_ptr<ResultCache> cache;
  std::vector<std::unique_ptr<ScriptedBackend>> backends;
  std::unique_ptr<WorkerContext> context;
  std::unique_ptr<SessionSet> sessions;
  std::unique_ptr<Listener> listener;
  std::shared_ptr<Entrance> entrance = std::make_shared<Entrance>();
};

inline BackendState& StateOf(World& world, size_t index) {
  return world.fleet->pools[0]->backends[index]->state;
}

// The backend that holds a request now. REQUIRES: exactly one does.
inline ScriptedBackend& Holder(World& world) {
  ScriptedBackend* holder = nullptr;
  for (const auto& backend : world.backends) {
    for (const auto& conn : backend->conns) {
      if (conn->ended || !conn->heard.empty()) continue;
      if (backend->requests > 0 && backend->conns.back() == conn) holder = backend.get();
    }
  }
  EXPECT_NE(holder, nullptr);
  return *holder;
}

}  // namespace penstock
