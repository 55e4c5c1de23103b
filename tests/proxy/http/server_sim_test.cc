// HttpServer in memory with told time: its timeouts and limits, and a seeded run
// in which clients behave in every way at once.
#include <gtest/gtest.h>

#include <deque>

#include "proxy/base/random.h"
#include "proxy/http/client.h"
#include "proxy/http/server.h"
#include "tests/support/manual_loop.h"
#include "tests/support/seeds.h"

namespace penstock {
namespace {

// A client that writes what it is told and keeps what comes back.
struct RawClient final : StreamReceiver {
  RawClient(MemoryNetwork& network, ManualLoop& loop, const Address& address) {
    dial = loop.dialer().Dial(address, kSecond, [this](auto dialled) {
      stream = *std::move(dialled);
      stream->SetReceiver(this);
      stream->Resume();
    });
    network.RunUntilIdle();
  }
  void OnData(std::string_view data) override { got += data; }
  void OnStreamEnd(const absl::Status& status) override { ended = status.ok() ? "end" : "reset"; }
  void OnWritable() override {}

  std::unique_ptr<Dialer::Pending> dial;
  std::unique_ptr<Stream> stream;
  std::string got;
  std::string ended;
};

class ServerSim : public ::testing::Test {
 protected:
  void Serve(HttpServerOptions options, HttpServer::Handler handler) {
    server_ = *HttpServer::Listen(loop_, *Address::Parse("10.0.0.1:80"), std::move(options),
                                  std::move(handler));
  }
  std::unique_ptr<RawClient> Client() {
    return std::make_unique<RawClient>(network_, loop_, server_->address());
  }
  void Say(RawClient& client, std::string_view bytes) {
    client.stream->Write(bytes);
    network_.RunUntilIdle();
  }

  static void Echo(HttpRequest request, std::unique_ptr<HttpAnswer> answer) {
    answer->Send(200, "text/plain", request.path + request.body);
  }

  MemoryNetwork network_;
  ManualLoop loop_{network_};
  std::unique_ptr<HttpServer> server_;
};

constexpr std::string_view kGet = "GET /a HTTP/1.1\r\nHost: h\r\n\r\n";

TEST_F(ServerSim, PipelinedRequestsAreAnsweredInOrderHoweverLateTheAnswers) {
  std::deque<std::pair<std::string, std::unique_ptr<HttpAnswer>>> waiting;
  Serve({}, [&](HttpRequest request, std::unique_ptr<HttpAnswer> answer) {
    waiting.emplace_back(request.path, std::move(answer));
  });
  const auto client = Client();
  std::string all;
  for (int i = 0; i < 10; ++i) all += "GET /" + std::to_string(i) + " HTTP/1.1\r\nHost: h\r\n\r\n";
  Say(*client, all);
  for (int i = 0; i < 10; ++i) {
    ASSERT_EQ(waiting.size(), 1u);
    auto [path, answer] = std::move(waiting.front());
    waiting.pop_front();
    answer->Send(200, "", path);
    network_.RunUntilIdle();
    EXPECT_TRUE(client->got.ends_with("\r\n\r\n/" + std::to_string(i)));
  }
}

TEST_F(ServerSim, ARequestThatComesTooSlowlyIsA408AndASilentClientIsJustClosed) {
  Serve({.header_timeout = 10 * kSecond, .keep_alive_timeout = 75 * kSecond}, Echo);
  const auto slow = Client(), silent = Client();
  for (int i = 0; i < 9; ++i) {
    Say(*slow, kGet.substr(static_cast<size_t>(i), 1));
    network_.Advance(kSecond);
  }
  EXPECT_EQ(slow->got, "");
  network_.Advance(2 * kSecond);
  EXPECT_TRUE(slow->got.starts_with("HTTP/1.1 408 "));
  EXPECT_TRUE(silent->got.empty());
  EXPECT_EQ(silent->ended, "end");
  network_.Advance(2 * kSecond);
  EXPECT_EQ(server_->connections(), 0u);
}

TEST_F(ServerSim, AnIdleConnectionIsKeptForItsTimeoutAndNoLonger) {
  Serve({.keep_alive_timeout = 75 * kSecond}, Echo);
  const auto client = Client();
  Say(*client, kGet);
  network_.Advance(74 * kSecond);
  Say(*client, kGet);
  EXPECT_EQ(client->ended, "");
  network_.Advance(76 * kSecond);
  EXPECT_EQ(client->ended, "end");
}

TEST_F(ServerSim, BadBytesAreAnsweredOnceAndTheConnectionCloses) {
  Serve({}, Echo);
  const auto client = Client();
  Say(*client,
      std::string(kGet) + "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n" + std::string(kGet));
  EXPECT_NE(client->got.find("HTTP/1.1 400 Bad Request"), std::string::npos) << client->got;
  EXPECT_NE(client->got.find("connection: close"), std::string::npos);
  EXPECT_NE(client->got.find("{\"error\":{"), std::string::npos);
  EXPECT_EQ(client->got.find("HTTP/1.1 200"), client->got.rfind("HTTP/1.1 200"));
  EXPECT_EQ(client->ended, "end");
}

TEST_F(ServerSim, OneConnectionAboveTheLimitIsClosedAtOnce) {
  Serve({.connections = 2}, Echo);
  const auto first = Client(), second = Client(), third = Client();
  network_.RunUntilIdle();
  EXPECT_EQ(third->ended, "end");
  Say(*second, kGet);
  EXPECT_TRUE(second->got.starts_with("HTTP/1.1 200"));
}

TEST_F(ServerSim, AReaderThatDoesNotReadItsStreamIsCut) {
  network_.link_options.window_bytes = 1000;
  std::unique_ptr<HttpAnswer> kept;
  bool gone = false;
  Serve({.stream_buffer_bytes = 5000}, [&](HttpRequest, std::unique_ptr<HttpAnswer> answer) {
    answer->OnClientGone([&] { gone = true; });
    answer->Begin(200, "text/event-stream");
    kept = std::move(answer);
  });
  const auto client = Client();
  Say(*client, kGet);
  client->stream->Pause();
  for (int i = 0; i < 5; ++i) kept->Write(std::string(1000, 'x'));
  EXPECT_FALSE(gone);
  for (int i = 0; i < 3; ++i) kept->Write(std::string(1000, 'x'));
  EXPECT_TRUE(gone);
  EXPECT_TRUE(kept->client_gone());
  EXPECT_EQ(server_->connections(), 0u);
  kept->End();  // Does nothing.
}

TEST_F(ServerSim, StoppingLetsAnswersFinishAndClosesTheRest) {
  std::unique_ptr<HttpAnswer> kept;
  Serve({}, [&](HttpRequest, std::unique_ptr<HttpAnswer> answer) { kept = std::move(answer); });
  const auto busy = Client(), idle = Client();
  Say(*busy, kGet);
  server_->StopAccepting();
  network_.RunUntilIdle();
  EXPECT_EQ(idle->ended, "end");
  kept->Send(200, "text/plain", "done");
  network_.RunUntilIdle();
  EXPECT_NE(busy->got.find("connection: close"), std::string::npos);
  EXPECT_EQ(busy->ended, "end");
}

TEST_F(ServerSim, AnAnswerOutlivesItsServer) {
  std::unique_ptr<HttpAnswer> kept;
  Serve({}, [&](HttpRequest, std::unique_ptr<HttpAnswer> answer) { kept = std::move(answer); });
  const auto client = Client();
  Say(*client, kGet);
  server_.reset();
  EXPECT_TRUE(kept->client_gone());
  kept->Send(200, "", "late");
}

TEST_F(ServerSim, ABodyIsAskedForWithContinue) {
  Serve({}, Echo);
  const auto client = Client();
  Say(*client, "POST /p HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
  EXPECT_EQ(client->got, "HTTP/1.1 100 Continue\r\n\r\n");
  Say(*client, "ok");
  EXPECT_TRUE(client->got.ends_with("/pok"));
}

// Many fetches at once against a handler that answers now, later, in pieces, cut
// or never, over links cut at random: each fetch ends once, and nothing is left.
void RunCrowd(uint64_t seed) {
  Random random(seed);
  MemoryNetwork network;
  network.link_options = {.deliver_bytes = 1 + random.Below(2000),
                          .window_bytes = random.Below(5000),
                          .high_mark = 1000,
                          .seed = seed + 1};
  ManualLoop loop(network);
  std::vector<std::unique_ptr<HttpAnswer>> later;
  auto server = *HttpServer::Listen(loop, *Address::Parse("10.0.0.1:80"), {.connections = 20},
                                    [&](HttpRequest request, std::unique_ptr<HttpAnswer> answer) {
                                      switch (random.Below(4)) {
                                        case 0:
                                          return answer->Send(200, "text/plain", request.body);
                                        case 1:
                                          return;  // Dropped: 500.
                                        case 2:
                                          answer->Begin(200, "text/event-stream");
                                          break;
                                        default:
                                          break;
                                      }
                                      if (random.Below(4) == 0) answer->OnClientGone([] {});
                                      later.push_back(std::move(answer));
                                    });
  std::vector<std::unique_ptr<Fetch>> fetches;
  std::vector<int> ended;
  for (int step = 0; step < 200; ++step) {
    const size_t index = ended.size();
    if (random.Below(2) == 0) {
      FetchOptions options;
      options.method = "POST";
      options.authority = "h";
      options.body = std::string(random.Below(3000), 'b');
      options.timeout = random.Below(5) * kSecond + kSecond;
      if (random.Below(2) == 0) options.on_data = [](std::string_view) {};
      ended.push_back(0);
      fetches.push_back(Fetch::Start(loop.dialer(), loop.deadlines(), server->address(),
                                     std::move(options),
                                     [&ended, index](auto) { ++ended[index]; }));
    }
    if (!later.empty()) {
      auto& answer = later[random.Below(static_cast<uint32_t>(later.size()))];
      switch (random.Below(6)) {
        case 0:
          answer->Write(std::string(random.Below(2000), 'w'));
          break;
        case 1:
          answer->End();
          break;
        case 2:
          answer->Cut();
          break;
        case 3:
          answer->Send(200, "", "late");
          break;
        default:
          answer.reset();
          break;
      }
      std::erase_if(later, [](const auto& kept) { return kept == nullptr || kept->client_gone(); });
    }
    if (!fetches.empty() && random.Below(8) == 0) {
      const size_t gone = random.Below(static_cast<uint32_t>(fetches.size()));
      if (fetches[gone] != nullptr && ended[gone] == 0) ended[gone] = 1;  // Cancelled: its end.
      fetches[gone] = nullptr;
    }
    network.Advance(random.Below(500) * kMillisecond);
  }
  later.clear();
  network.Advance(300 * kSecond);
  for (size_t i = 0; i < ended.size(); ++i) ASSERT_EQ(ended[i], 1) << "fetch " << i;
  ASSERT_EQ(server->connections(), 0u);
  fetches.clear();
  network.RunUntilIdle();
  ASSERT_EQ(network.links(), 0u);
}

TEST(ServerCrowd, EveryFetchEndsOnceAndNothingIsLeft) { ForEachSeed(100, RunCrowd); }

}  // namespace
}  // namespace penstock
