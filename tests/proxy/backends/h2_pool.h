// A pool of HTTP/2 connections to one backend whose ends a test holds.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "proxy/backends/conn_pool.h"
#include "tests/proxy/backends/h2_end.h"
#include "tests/proxy/backends/worlds.h"
#include "tests/support/manual_loop.h"

namespace penstock {

// A request's side: sends a GET as soon as it can, and writes down what it is told, and
// how often.
struct H2Asker final : BackendCall::User {
  void OnConnReady(BackendCall& ready) override {
    call = &ready;
    if (!sends) return;
    RequestHead head;
    head.method = "GET";
    head.target = head.path = "/x";
    head.authority = "engine";
    call->WriteRequest(head, {});
    call->WriteEnd({});
  }
  void OnAnswerHead(ResponseHead& head) override {
    status = head.status;
    if (leave_at_head) std::exchange(call, nullptr)->Leave();
  }
  void OnAnswerInterim(ResponseHead&) override {}
  void OnAnswerBody(std::string_view data) override { body += data; }
  void OnAnswerEnd(std::span<Header> fields) override {
    call = nullptr;
    ++ends;
    for (const Header& field : fields) trailers += std::string(field.name) + "=" + std::string(field.value);
  }
  void OnConnFailed(const ConnFailure& why) override {
    call = nullptr;
    ++failures;
    failure = why;
  }
  void OnConnWritable() override { ++writable; }

  BackendCall* call = nullptr;
  int status = 0;
  std::string body, trailers;
  int ends = 0, failures = 0, writable = 0;
  bool sends = true;
  bool leave_at_head = false;
  ConnFailure failure;
};

struct H2World {
  explicit H2World(ConnPoolLimits limits = {}, const CodecLimits& theirs = {})
      : backend_limits(theirs), backend(PoolOf(1)->backends[0]) {
    if (limits.protocol == config::Protocol::kAuto) limits.protocol = config::Protocol::kHttp2;
    pool = std::make_unique<ConnPool>(backend, loop.dialer(), loop.deadlines(), turn, limits);
    listener = ListenOn(backend->authority);
  }
  ~H2World() { network.RunUntilIdle(); }

  std::unique_ptr<Listener> ListenOn(std::string_view address) {
    return *loop.Listen(*Address::Parse(address), [this](std::unique_ptr<Stream> stream) {
      ends.push_back(std::make_unique<H2End>(std::move(stream), backend_limits));
    });
  }

  void Ask(H2Asker& asker) {
    {
      Turn::Scope scope(turn);
      if (BackendCall* const call = pool->Acquire(asker, kSecond, false)) asker.OnConnReady(*call);
    }
    network.RunUntilIdle();
  }
  // A call whose request the test writes itself.
  void Acquire(H2Asker& asker) {
    asker.sends = false;
    Ask(asker);
    ASSERT_NE(asker.call, nullptr);
  }
  void Leave(H2Asker& asker) {
    {
      Turn::Scope scope(turn);
      std::exchange(asker.call, nullptr)->Leave();
    }
    network.RunUntilIdle();
  }
  void Run() { network.RunUntilIdle(); }
  BackendState::WorkerCells& cells() { return backend->state.worker(0); }

  CodecLimits backend_limits;   // Of connections that are accepted from now on.
  MemoryNetwork network;
  ManualLoop loop{network};
  Turn turn;
  std::shared_ptr<Backend> backend;
  std::unique_ptr<Listener> listener;
  std::vector<std::unique_ptr<H2End>> ends;
  std::unique_ptr<ConnPool> pool;
};

inline CodecLimits Allowing(uint32_t streams) {
  CodecLimits limits;
  limits.h2.concurrent_streams = streams;
  return limits;
}

}  // namespace penstock
