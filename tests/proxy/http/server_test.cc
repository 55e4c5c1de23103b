// HttpServer and Fetch, talking to each other over real sockets on one loop.
#include "proxy/http/server.h"

#include <gtest/gtest.h>

#include "proxy/http/client.h"

namespace penstock {
namespace {

class ServerTest : public ::testing::Test {
 protected:
  void Serve(HttpServer::Handler handler, HttpServerOptions options = {}) {
    auto server = HttpServer::Listen(*loop_, *Address::Parse("127.0.0.1:0"), std::move(options),
                                     std::move(handler));
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
  }

  absl::StatusOr<FetchResult> Get(FetchOptions options) {
    absl::StatusOr<FetchResult> got = absl::UnknownError("not called");
    options.authority = "test";
    auto fetch = Fetch::Start(loop_->dialer(), loop_->deadlines(), server_->address(),
                              std::move(options), [&](absl::StatusOr<FetchResult> result) {
                                got = std::move(result);
                                loop_->Stop();
                              });
    loop_->Run();
    return got;
  }

  std::unique_ptr<Loop> loop_ = Loop::Create();
  std::unique_ptr<HttpServer> server_;
};

TEST_F(ServerTest, AWholeRequestGetsAWholeAnswer) {
  Serve([](HttpRequest request, std::unique_ptr<HttpAnswer> answer) {
    EXPECT_EQ(request.method, "POST");
    EXPECT_EQ(request.path, "/echo");
    EXPECT_EQ(request.QueryValue("b"), "2");
    EXPECT_EQ(request.Header("x-word"), "one");
    EXPECT_TRUE(request.from_loopback);
    answer->Send(201, "text/plain", request.body, {{"x-back", "two"}});
  });
  const auto result = Get({.method = "POST",
                           .target = "/echo?a=1&b=2",
                           .headers = {{"X-Word", "one"}},
                           .body = std::string(300000, 'b')});
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->status, 201);
  EXPECT_EQ(result->body, std::string(300000, 'b'));
}

TEST_F(ServerTest, AStreamedAnswerArrivesPieceByPiece) {
  std::unique_ptr<HttpAnswer> kept;
  Serve([&](HttpRequest, std::unique_ptr<HttpAnswer> answer) {
    answer->Begin(200, "text/event-stream");
    answer->Write("first");
    kept = std::move(answer);
  });
  std::vector<std::string> pieces;
  FetchOptions options;
  options.on_data = [&](std::string_view data) {
    pieces.emplace_back(data);
    if (pieces.size() == 1) kept->Write("second");
    if (pieces.size() == 2) kept->End({{"x-trailer", "1"}});
  };
  const auto result = Get(std::move(options));
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(pieces, (std::vector<std::string>{"first", "second"}));
}

TEST_F(ServerTest, TheLastWordsBeforeACutArrive) {
  std::string last(300000, 'l');
  Serve([&](HttpRequest, std::unique_ptr<HttpAnswer> answer) {
    answer->Begin(200, "text/event-stream");
    answer->Write(std::string(500000, 'f'));
    answer->CutAfter(last);
  });
  size_t bytes = 0;
  FetchOptions options{.target = "/"};
  options.on_data = [&](std::string_view data) { bytes += data.size(); };
  EXPECT_FALSE(Get(std::move(options)).ok()) << "a cut answer passed for a whole one";
  EXPECT_EQ(bytes, 800000u);
}

TEST_F(ServerTest, ACutStreamIsSeenAsAFailure) {
  Serve([](HttpRequest, std::unique_ptr<HttpAnswer> answer) {
    answer->Begin(200, "text/event-stream");
    answer->Write("first");
    answer->Cut();
  });
  EXPECT_FALSE(Get({}).ok());
}

TEST_F(ServerTest, AnAnswerThatIsDroppedIsA500) {
  Serve([](HttpRequest, std::unique_ptr<HttpAnswer>) {});
  const auto result = Get({});
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->status, 500);
}

TEST_F(ServerTest, ABodyAboveTheLimitIsRefusedWith413) {
  HttpServerOptions options;
  options.body_bytes = 10;
  Serve([](HttpRequest, std::unique_ptr<HttpAnswer>) { FAIL(); }, options);
  const auto result = Get({.method = "POST", .body = std::string(11, 'x')});
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->status, 413);
  EXPECT_NE(result->body.find("request_too_large"), std::string::npos);
}

TEST_F(ServerTest, TheHandlerHearsThatTheClientLeft) {
  std::unique_ptr<HttpAnswer> kept;
  std::unique_ptr<Fetch> fetch;
  Serve([&](HttpRequest, std::unique_ptr<HttpAnswer> answer) {
    kept = std::move(answer);
    kept->OnClientGone([&] {
      EXPECT_TRUE(kept->client_gone());
      kept->Send(200, "text/plain", "too late");
      kept.reset();
      loop_->Stop();
    });
    fetch.reset();
  });
  fetch = Fetch::Start(loop_->dialer(), loop_->deadlines(), server_->address(),
                       {.authority = "test"}, [](absl::StatusOr<FetchResult>) { FAIL(); });
  loop_->Run();
  EXPECT_EQ(kept, nullptr);
}

TEST_F(ServerTest, NoAnswerInTimeIsADeadlineExceeded) {
  std::unique_ptr<HttpAnswer> kept;
  Serve([&](HttpRequest, std::unique_ptr<HttpAnswer> answer) { kept = std::move(answer); });
  const auto result = Get({.timeout = 50 * kMillisecond});
  EXPECT_EQ(result.status().code(), absl::StatusCode::kDeadlineExceeded) << result.status();
}

TEST_F(ServerTest, NobodyListeningIsUnavailable) {
  Serve([](HttpRequest, std::unique_ptr<HttpAnswer>) {});
  const Address address = server_->address();
  server_->StopAccepting();
  absl::Status status;
  auto fetch = Fetch::Start(loop_->dialer(), loop_->deadlines(), address, {.authority = "test"},
                            [&](absl::StatusOr<FetchResult> result) {
                              status = result.status();
                              loop_->Stop();
                            });
  loop_->Run();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
}

}  // namespace
}  // namespace penstock
