// An engine as the control thread sees it: /health and /load, told what to say.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "proxy/http/server.h"
#include "tests/support/manual_loop.h"

namespace penstock {

class FakeEngine {
 public:
  FakeEngine(MemoryNetwork& network, ManualLoop& loop, const std::string& address)
      : network_(network), loop_(loop), address_(*Address::Parse(address)) {}

  void Start() {
    ++epoch_;
    seq_ = 0;
    auto server = HttpServer::Listen(loop_, address_, {},
                                     [this](HttpRequest request, std::unique_ptr<HttpAnswer> answer) {
      OnRequest(request, std::move(answer));
    });
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
  }
  // As SIGKILL: its connections are reset and nothing listens any more.
  void Kill() {
    network_.ResetAllTo(address_.text);
    watchers_.clear();
    held_.clear();
    server_.reset();
  }
  // As SIGSTOP: connections stay, nothing is answered. False: it goes on, late
  // answers included.
  void Stop(bool stopped) {
    stopped_ = stopped;
    for (auto& [request, answer] : std::exchange(held_, {})) OnRequest(request, std::move(answer));
  }
  // A line to everybody who watches.
  void Say(int running, int waiting = 0) {
    running_ = running;
    waiting_ = waiting;
    for (auto& watcher : watchers_) watcher->Write(Line());
  }
  void SayRaw(std::string_view bytes) {
    for (auto& watcher : watchers_) watcher->Write(bytes);
  }
  void EndStreams() {
    for (auto& watcher : watchers_) watcher->End();
    watchers_.clear();
  }

  int health_status = 200;
  bool has_load = true;
  bool has_watch = true;
  int checks = 0;
  int polls = 0;
  int watches = 0;
  size_t watchers() const { return watchers_.size(); }

 private:
  std::string Line() {
    return fmt::format(
        "{{\"epoch\":{},\"seq\":{},\"state\":\"ready\",\"running\":{},\"waiting\":{},"
        "\"max_running\":8,\"weights\":\"w1\"}}\n", epoch_, ++seq_, running_, waiting_);
  }

  void OnRequest(const HttpRequest& request, std::unique_ptr<HttpAnswer> answer) {
    if (stopped_) {
      held_.emplace_back(request, std::move(answer));
      return;
    }
    if (request.path == "/health") {
      ++checks;
      return answer->Send(health_status, "text/plain", "");
    }
    if (request.path != "/load" || !has_load) return answer->Send(404, "text/plain", "no\n");
    if (request.query != "watch=1" || !has_watch) {
      ++polls;
      return answer->Send(200, "application/json", Line());
    }
    ++watches;
    answer->Begin(200, "application/x-ndjson");
    answer->Write(Line());
    watchers_.push_back(std::move(answer));
  }

  MemoryNetwork& network_;
  ManualLoop& loop_;
  const Address address_;
  std::unique_ptr<HttpServer> server_;
  std::vector<std::unique_ptr<HttpAnswer>> watchers_;
  std::vector<std::pair<HttpRequest, std::unique_ptr<HttpAnswer>>> held_;
  bool stopped_ = false;
  int running_ = 0;
  int waiting_ = 0;
  int epoch_ = 0;
  int seq_ = 0;
};

}  // namespace penstock
