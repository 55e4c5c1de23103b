// What must hold: after every step, when all is at rest, and when the server is gone.
#include <signal.h>

#include <algorithm>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "tests/sim/proxy_sim.h"

namespace penstock::sim {
namespace {

// What one producer adds before it looks at the mark again: a read, or a piece of a
// shared answer, and the codec's own window on HTTP/2.
constexpr size_t kUnderWayMax = (16 + 64) * 1024 + (1 << 20) + 256 * 1024;

constexpr const char* kGauges[] = {
    "penstock_http_requests_active", "penstock_queue_depth",          "penstock_backend_requests_active",
    "penstock_backend_streams",      "penstock_client_connections",   "penstock_buffered_request_bytes",
    "penstock_backend_connections",  "penstock_cache_flights"};

}  // namespace

void ProxySim::CheckStep() {
  const ProcessTotals& totals = server_->totals();
  EXPECT_LE(totals.buffered_bytes.load(), uint64_t{policy_.buffered_max_kib} * 1024);
  EXPECT_LE(totals.requests.load(), policy_.requests_max);
  EXPECT_LE(totals.connections.load(), policy_.connections_max);
  for (const char* door : {kPublic, kSide}) EXPECT_LE(network_.MostUnderWay(door, 0), kUnderWayMax) << door;
  for (const auto& pool : server_->fleet()->pools) {
    size_t out = 0;
    for (const auto& backend : pool->backends) {
      const Breaker::View view = backend->state.breaker.view();
      out += view.state != BreakerState::kClosed;
      if (view.state == BreakerState::kHalfOpen) {
        EXPECT_LE(view.probes, policy_.probes) << backend->name;
      }
      EXPECT_LE(backend->state.in_flight(), totals.requests.load() * 2) << backend->name;
    }
    const auto most = static_cast<size_t>(pool->settings.circuit_breaker.max_ejection *
                                          static_cast<double>(pool->backends.size()));
    if (!forced_) {
      EXPECT_LE(out, std::max<size_t>(1, most) + 1) << "ejected of " << pool->settings.name;
    }
  }
}

// The world becomes well, and everybody gets an answer, or at least an end.
void ProxySim::Calm() {
  network_.black_holes.clear();
  memory_used_ = 0;
  for (const auto& backend : backends_) backend->Calm();
  OverEvery([](Client& client) { client.Behave(); });
}

void ProxySim::Finish() {
  for (int round = 0; round < 12; ++round) {
    Calm();
    Advance(4 * kSecond);
  }
  CheckStep();
  CheckServes();
  EXPECT_EQ(server_->totals().requests.load(), 0u) << "requests without an end";
  OverEvery([](Client& client) { client.Leave(true); });
  Advance(16 * kSecond);
  CheckAtRest();
  ledger_.Check(false);
  ledger_.CheckCounters(Metrics());
  CheckDecisions();
  CheckNothingLeft();
}

// Of some requests: as many choices are on record as the log says.
void ProxySim::CheckDecisions() {
  for (int i = 0; i < 8 && ledger_.asked() > 0; ++i) {
    const size_t number = 1 + random_.Below(static_cast<uint32_t>(ledger_.asked()));
    const Asked& asked = *ledger_.Find(fmt::format("Q{:06}", number));
    const size_t want = asked.lines.empty() ? 0 : asked.lines[0].attempts;
    Fetch("GET", "/decisions/" + asked.nonce, [nonce = asked.nonce, want](std::string body) {
      size_t found = 0;
      for (size_t at = 0; (at = body.find("\"request_id\"", at)) != std::string::npos; ++at) ++found;
      EXPECT_EQ(found, want) << "decisions of " << nonce << ": " << body;
    });
  }
  network_.RunUntilIdle();
}

// Whatever has happened is over: each pool answers the next request.
void ProxySim::CheckServes() {
  for (size_t i = 0; i < Policy::kChat; ++i) {
    for (const char* deed : {"undrain", "breaker/auto"}) {
      Fetch("POST", fmt::format("/backends/chat/c{}/{}", i, deed), nullptr);
      if (i < Policy::kFar) Fetch("POST", fmt::format("/backends/far/f{}/{}", i, deed), nullptr);
    }
  }
  network_.RunUntilIdle();
  std::vector<const Asked*> asked;
  for (const char* model : {"wren", "kite", ""}) {
    Asked& next = ledger_.Ask(false, "");
    next.method = *model == '\0' ? "GET" : "POST";
    next.path = *model == '\0' ? "/files/last" : "/v1/chat/completions";
    if (*model != '\0') next.body = fmt::format("{{\"model\":\"{}\"}}", model);
    Connect(next, {.at_once = UINT32_MAX}, kPublic);
    asked.push_back(&next);
  }
  Advance(2 * kSecond);
  for (const Asked* one : asked) {
    EXPECT_TRUE(one->end == Asked::End::kWhole && one->status < 500)
        << one->path << " " << one->body << ": " << one->status << " " << one->got.substr(0, 300);
  }
}

void ProxySim::CheckAtRest() {
  const std::string metrics = Metrics();
  for (const char* gauge : kGauges) EXPECT_EQ(SumOf(metrics, gauge), 0) << gauge;
  const ProcessTotals& totals = server_->totals();
  EXPECT_EQ(totals.connections.load(), 0u);
  EXPECT_EQ(totals.buffered_bytes.load(), 0u);
  for (const auto& pool : server_->fleet()->pools) {
    for (const auto& backend : pool->backends) EXPECT_EQ(backend->state.in_flight(), 0u) << backend->name;
  }
  for (const char* door : {kPublic, kSide}) EXPECT_EQ(network_.LinksTo(door), 0u) << door;
  for (size_t i = 1; i < loops_.size(); ++i) {
    EXPECT_EQ(loops_[i]->timers().size(), 1u) << "timers of worker " << i - 1;  // Its watch of itself.
    EXPECT_TRUE(loops_[i]->deadlines().empty()) << "deadlines of worker " << i - 1;
  }
}

// Told to end in the middle of it all: it does, in time, and accounts for everything.
void ProxySim::Terminate() {
  loops_[0]->Signal(SIGTERM);
  const MonoTime delay = policy_.draining_slowly ? kSecond / 2 : 0;
  const MonoTime latest = network_.now() + delay + 9 * kSecond;  // drain_streams, and one.
  while (!loops_[0]->stopped() && network_.now() < latest) {
    Step();
    CheckStep();
    Advance(random_.Below(200) * kMillisecond);
  }
  EXPECT_TRUE(loops_[0]->stopped()) << "the drain has no end";
  ledger_.CheckCounters(Metrics());
  CheckNothingLeft();
  OverEvery([](Client& client) { client.Behave(); });
  network_.RunUntilIdle();
  OverEvery([](Client& client) { client.Leave(true); });
  ledger_.Check(true);
}

void ProxySim::CheckNothingLeft() {
  fetches_.clear();
  server_.reset();
  network_.RunUntilIdle();
  OverEvery([](Client& client) { client.Behave(); });
  network_.RunUntilIdle();
  OverEvery([](Client& client) { client.Leave(true); });
  clients_.clear();
  dials_.clear();
  for (const auto& backend : backends_) backend->Calm();
  network_.Advance(200 * kMillisecond);  // Those that do not read for a moment.
  for (const auto& backend : backends_) {
    backend->Reap();
    EXPECT_EQ(backend->lines(), 0u) << backend->address();
  }
  EXPECT_EQ(network_.links(), 0u);
}

}  // namespace penstock::sim
