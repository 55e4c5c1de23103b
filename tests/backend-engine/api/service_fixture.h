// The real API on a real HTTP server on a free port, over a real engine whose
// device is emulated, in one loop that runs while a request is under way.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "backend-engine/api/open_model.h"
#include "backend-engine/api/service.h"
#include "proxy/http/client.h"
#include "proxy/http/server.h"
#include "proxy/net/loop.h"

namespace penstock::engine {

struct ServiceSetup {
  ServeOptions options;
  ServiceOptions service;
  EngineOptions engine;

  ServiceSetup() {
    options.model = PENSTOCK_SOURCE_DIR "/backend-engine/models/lexicon-5m";
    options.device = "emulated";
    options.timing = "instant";
    options.tensor_parallel = 2;
    service.name = "lexicon-5m";
    service.epoch = 77;
    service.version = "1.2.3";
  }
};

class ServiceTest : public ::testing::Test {
 protected:
  struct Answer {
    int status = 0;
    HeaderList headers;
    std::string body;
    bool whole = false;  // False: the connection was cut before the end.

    std::string_view Header(std::string_view name) const {
      for (const auto& [key, value] : headers) {
        if (key == name) return value;
      }
      return {};
    }
    nlohmann::json Json() const { return nlohmann::json::parse(body, nullptr, false); }
    std::string ErrorCode() const { return Json()["error"]["code"]; }
  };

  ~ServiceTest() override {
    engine_.reset();
    service_.reset();
    server_.reset();
  }

  // Listens; the model comes with MakeReady().
  void Listen(ServiceSetup setup = {}) {
    setup_ = std::move(setup);
    service_.emplace(*loop_, setup_.service);
    auto server = HttpServer::Listen(
        *loop_, *Address::Parse("127.0.0.1:0"), HttpServerOptions(),
        [this](HttpRequest request, std::unique_ptr<HttpAnswer> answer) {
          service_->Handle(std::move(request), std::move(answer));
        });
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
  }

  void MakeReady() {
    auto opened = OpenModel(setup_.options, absl::FromUnixSeconds(1700000000), [](double) {});
    ASSERT_TRUE(opened.ok()) << opened.status();
    opened_.emplace(*std::move(opened));
    EngineOptions options = setup_.engine;
    options.max_length = opened_->model.max_length;
    runner_ = opened_->runner.get();
    engine_ = std::make_unique<Engine>(std::move(opened_->runner), options, service_->sink(),
                                       service_->on_load());
    absl::Status ready = absl::UnknownError("never ready");
    // From inside the loop, as what the engine posts to one that is not running is lost.
    const auto timer = loop_->timers().After(0, [&] {
      service_->Ready(opened_->model, *engine_, [&](absl::Status status) {
        ready = status;
        loop_->Stop();
      });
    });
    loop_->Run();
    ASSERT_TRUE(ready.ok()) << ready;
  }

  void Start(ServiceSetup setup = {}) {
    Listen(std::move(setup));
    MakeReady();
  }

  // Sends a request; the answer is filled in while the loop runs. With `stop`
  // the loop stops at its end.
  std::unique_ptr<Fetch> Send(FetchOptions options, Answer& answer, bool stop = true) {
    options.authority = "test";
    options.timeout = 20 * kSecond;
    return Fetch::Start(loop_->dialer(), loop_->deadlines(), server_->address(), std::move(options),
                        [this, &answer, stop](absl::StatusOr<FetchResult> result) {
                          answer.whole = result.ok();
                          if (result.ok()) {
                            answer.status = result->status;
                            answer.headers = std::move(result->headers);
                            if (!result->body.empty()) answer.body = std::move(result->body);
                          }
                          if (stop) loop_->Stop();
                        });
  }

  Answer Ask(FetchOptions options) {
    Answer answer;
    const auto fetch = Send(std::move(options), answer);
    loop_->Run();
    return answer;
  }

  Answer Get(std::string target) { return Ask({.target = std::move(target)}); }

  static FetchOptions PostOptions(std::string target, const nlohmann::json& body,
                                  HeaderList headers = {}) {
    headers.emplace_back("content-type", "application/json");
    return {.method = "POST",
            .target = std::move(target),
            .headers = std::move(headers),
            .body = body.dump()};
  }
  Answer Post(std::string target, const nlohmann::json& body, HeaderList headers = {}) {
    return Ask(PostOptions(std::move(target), body, std::move(headers)));
  }

  static nlohmann::json ChatBody(const nlohmann::json& more = {}) {
    nlohmann::json body = {{"model", "lexicon-5m"},
                           {"messages", {{{"role", "user"}, {"content", "What is a turbine?"}}}},
                           {"max_tokens", 12}};
    if (more.is_object()) body.update(more);
    return body;
  }
  Answer Chat(const nlohmann::json& more = {}, HeaderList headers = {}) {
    return Post("/v1/chat/completions", ChatBody(more), std::move(headers));
  }

  // Runs the loop until `done`, or twenty seconds have passed.
  bool RunUntil(std::function<bool()> done) {
    const MonoTime end = loop_->ReadClock() + 20 * kSecond;
    TimerQueue::Timer timer;
    std::function<void()> look = [&] {
      if (done() || loop_->ReadClock() > end) return loop_->Stop();
      timer = loop_->timers().After(kMillisecond, [&] { look(); });
    };
    timer = loop_->timers().After(0, [&] { look(); });
    loop_->Run();
    return done();
  }

  std::optional<OpenedModel> opened_;  // Prompts in preparation use it until the loop is gone.
  std::unique_ptr<Loop> loop_ = Loop::Create();
  ServiceSetup setup_;
  std::unique_ptr<HttpServer> server_;
  std::optional<Service> service_;
  std::unique_ptr<Engine> engine_;
  Runner* runner_ = nullptr;  // The engine's.
};

}  // namespace penstock::engine
