// HttpServer in memory with told time: its timeouts and limits, and a seeded run
// in which clients behave in every way at once.
#include <gtest/gtest.h>

#include <algorithm>
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
  void OnData(std::string_view data) override {
    got += data;
    if (pause_after_each) stream->Pause();
  }
  void OnStreamEnd(const absl::Status& status) override { ended = status.ok() ? "end" : "reset"; }
  void OnWritable() override {}

  std::unique_ptr<Dialer::Pending> dial;
  std::unique_ptr<Stream> stream;
  std::string got;
  std::string ended;
  bool pause_after_each = false;
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

TEST_F(ServerSim, ASlowReaderHasAsLongAsItTakesSomeOfTheAnswerThatEndsItsConnection) {
  network_.link_options.window_bytes = 1000;
  Serve({.keep_alive_timeout = 10 * kSecond}, [](HttpRequest, std::unique_ptr<HttpAnswer> answer) {
    answer->Send(200, "text/plain", std::string(8000, 'x'), {{"connection", "close"}});
  });
  const auto slow = Client(), stuck = Client();
  for (RawClient* client : {slow.get(), stuck.get()}) {
    client->stream->Pause();
    Say(*client, kGet);
  }
  network_.Advance(8 * kSecond);
  EXPECT_EQ(server_->connections(), 2u);
  EXPECT_GT(server_->buffered(), 8000u);
  slow->stream->Resume();
  network_.RunUntilIdle();
  EXPECT_EQ(std::count(slow->got.begin(), slow->got.end(), 'x'), 8001);  // And text/plain's.
  EXPECT_EQ(slow->ended, "end");
  network_.Advance(5 * kSecond);
  EXPECT_EQ(server_->connections(), 0u);
  EXPECT_EQ(server_->buffered(), 0u);
}

TEST_F(ServerSim, ACutWaitsForItsLastWordsButNotForLong) {
  network_.link_options.window_bytes = 1000;
  Serve({}, [](HttpRequest, std::unique_ptr<HttpAnswer> answer) {
    answer->Begin(200, "text/event-stream");
    answer->CutAfter(std::string(5000, '!'));
  });
  const auto slow = Client(), stuck = Client();
  for (RawClient* client : {slow.get(), stuck.get()}) {
    client->stream->Pause();
    Say(*client, kGet);
  }
  network_.Advance(kSecond / 2);
  EXPECT_EQ(server_->connections(), 2u);
  slow->stream->Resume();
  network_.RunUntilIdle();
  EXPECT_EQ(std::count(slow->got.begin(), slow->got.end(), '!'), 5000);
  network_.Advance(2 * kSecond);
  EXPECT_EQ(slow->ended, "reset");
  EXPECT_EQ(server_->connections(), 0u);
}

TEST_F(ServerSim, ACutLeavesItsLastWordsToAReaderThatGoesOnTakingThem) {
  network_.link_options.window_bytes = 1000;
  network_.link_options.deliver_bytes = 1000;
  Serve({}, [](HttpRequest, std::unique_ptr<HttpAnswer> answer) {
    answer->Begin(200, "text/event-stream");
    answer->CutAfter(std::string(20000, '!'));
  });
  const auto slow = Client();
  slow->pause_after_each = true;
  Say(*slow, kGet);
  for (int i = 0; i < 10; ++i) {
    network_.Advance(kSecond / 2);
    EXPECT_EQ(slow->ended, "") << i;
    slow->stream->Resume();
    network_.RunUntilIdle();
  }
  slow->pause_after_each = false;
  slow->stream->Resume();
  network_.RunUntilIdle();
  EXPECT_EQ(std::count(slow->got.begin(), slow->got.end(), '!'), 20000);
  network_.Advance(kSecond);
  EXPECT_EQ(slow->ended, "reset");
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
// or never, over links cut at random.
class Crowd {
 public:
  explicit Crowd(uint64_t seed) : random_(seed) {
    network_.link_options = {.deliver_bytes = 1 + Any(2000), .window_bytes = Any(5000), .high_mark = 1000,
                             .seed = seed + 1};
    server_ = *HttpServer::Listen(loop_, *Address::Parse("10.0.0.1:80"), {.connections = 20},
                                  [this](HttpRequest request, std::unique_ptr<HttpAnswer> answer) {
                                    Handle(request, std::move(answer));
                                  });
  }

  void Step() {
    if (Any(2) == 0) Begin();
    if (!later_.empty()) Answer();
    if (!fetches_.empty() && Any(8) == 0) Cancel(Any(fetches_.size()));
    network_.Advance(static_cast<MonoTime>(Any(500)) * kMillisecond);
  }

  // Each fetch has ended once, and nothing is left.
  void ExpectQuiet() {
    later_.clear();
    network_.Advance(300 * kSecond);
    for (size_t i = 0; i < ended_.size(); ++i) ASSERT_EQ(ended_[i], 1) << "fetch " << i;
    ASSERT_EQ(server_->connections(), 0u);
    fetches_.clear();
    network_.RunUntilIdle();
    ASSERT_EQ(network_.links(), 0u);
  }

 private:
  size_t Any(size_t n) { return random_.Below(static_cast<uint32_t>(n)); }

  void Handle(const HttpRequest& request, std::unique_ptr<HttpAnswer> answer) {
    switch (Any(4)) {
      case 0: return answer->Send(200, "text/plain", request.body);
      case 1: return;   // Dropped: 500.
      case 2: answer->Begin(200, "text/event-stream"); break;
      default: break;
    }
    if (Any(4) == 0) answer->OnClientGone([] {});
    later_.push_back(std::move(answer));
  }

  void Begin() {
    const size_t index = ended_.size();
    FetchOptions options;
    options.method = "POST";
    options.authority = "h";
    options.body = std::string(Any(3000), 'b');
    options.timeout = static_cast<MonoTime>(1 + Any(5)) * kSecond;
    if (Any(2) == 0) options.on_data = [](std::string_view) {};
    ended_.push_back(0);
    fetches_.push_back(Fetch::Start(loop_.dialer(), loop_.deadlines(), server_->address(),
                                    std::move(options), [this, index](auto) { ++ended_[index]; }));
  }

  void Answer() {
    auto& answer = later_[Any(later_.size())];
    switch (Any(6)) {
      case 0: answer->Write(std::string(Any(2000), 'w')); break;
      case 1: answer->End(); break;
      case 2: answer->Cut(); break;
      case 3: answer->Send(200, "", "late"); break;
      default: answer.reset(); break;
    }
    std::erase_if(later_, [](const auto& kept) { return kept == nullptr || kept->client_gone(); });
  }

  void Cancel(size_t index) {
    if (fetches_[index] != nullptr && ended_[index] == 0) ended_[index] = 1;   // That is its end.
    fetches_[index] = nullptr;
  }

  Random random_;
  MemoryNetwork network_;
  ManualLoop loop_{network_};
  std::vector<std::unique_ptr<HttpAnswer>> later_;
  std::unique_ptr<HttpServer> server_;
  std::vector<int> ended_;
  std::vector<std::unique_ptr<Fetch>> fetches_;
};

TEST(ServerCrowd, EveryFetchEndsOnceAndNothingIsLeft) {
  ForEachSeed(100, [](uint64_t seed) {
    Crowd crowd(seed);
    for (int step = 0; step < 200; ++step) crowd.Step();
    crowd.ExpectQuiet();
  });
}

}  // namespace
}  // namespace penstock
