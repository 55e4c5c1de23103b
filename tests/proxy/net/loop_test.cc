// The loop over real sockets: what Stream, Dialer, Listener and Loop promise.
#include "proxy/net/loop.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <functional>
#include <thread>

#include "proxy/base/log.h"

namespace penstock {
namespace {

// A receiver made of functions; writes down what comes.
struct Ear final : StreamReceiver {
  std::string data;
  absl::Status end = absl::UnknownError("not ended");
  int ends = 0;
  int writables = 0;
  std::function<void()> on_data, on_end, on_writable;

  void OnData(std::string_view bytes) override {
    data += bytes;
    if (on_data) on_data();
  }
  void OnStreamEnd(const absl::Status& status) override {
    end = status;
    ++ends;
    if (on_end) on_end();
  }
  void OnWritable() override {
    ++writables;
    if (on_writable) on_writable();
  }
};

// Two connected streams on one loop.
class LoopTest : public ::testing::Test {
 protected:
  void Connect(const char* address = "127.0.0.1:0") {
    auto listener = loop_->Listen(*Address::Parse(address), [this](std::unique_ptr<Stream> stream) {
      server_ = std::move(stream);
      server_->SetReceiver(&server_ear_);
      if (client_ != nullptr) loop_->Stop();
    });
    ASSERT_TRUE(listener.ok()) << listener.status();
    listener_ = *std::move(listener);
    dial_ = loop_->dialer().Dial(listener_->address(), kSecond,
                                 [this](absl::StatusOr<std::unique_ptr<Stream>> stream) {
                                   ASSERT_TRUE(stream.ok()) << stream.status();
                                   client_ = *std::move(stream);
                                   client_->SetReceiver(&client_ear_);
                                   if (server_ != nullptr) loop_->Stop();
                                 });
    loop_->Run();
  }

  std::unique_ptr<Loop> loop_ = Loop::Create();
  Ear client_ear_, server_ear_;
  std::unique_ptr<Listener> listener_;
  std::unique_ptr<Dialer::Pending> dial_;
  std::unique_ptr<Stream> client_, server_;
};

TEST_F(LoopTest, BytesGoBothWaysInOrder) {
  Connect();
  server_ear_.on_data = [&] { server_->Write(server_ear_.data == "ping one" ? "pong" : ""); };
  client_ear_.on_data = [&] { loop_->Stop(); };
  server_->Resume();
  client_->Resume();
  const std::string_view pieces[] = {"ping", "", " one"};
  client_->Write(pieces);
  loop_->Run();
  EXPECT_EQ(client_ear_.data, "pong");
  EXPECT_EQ(client_->peer(), listener_->address().text);
  EXPECT_TRUE(server_->peer().starts_with("127.0.0.1:"));
}

TEST_F(LoopTest, SpeaksIpv6) {
  Connect("[::1]:0");
  server_ear_.on_data = [&] { loop_->Stop(); };
  server_->Resume();
  client_->Write("six");
  loop_->Run();
  EXPECT_EQ(server_ear_.data, "six");
  EXPECT_TRUE(server_->peer().starts_with("[::1]:"));
}

TEST_F(LoopTest, NothingIsReadWhilePausedAndEverythingAfter) {
  Connect();
  client_->Write("early");
  auto timer = loop_->timers().After(50 * kMillisecond, [&] {
    EXPECT_EQ(server_ear_.data, "");
    server_->Resume();
  });
  server_ear_.on_data = [&] {
    if (server_ear_.data == "early") {
      // Pausing and resuming in one turn loses nothing; pausing holds the next bytes back.
      server_->Pause();
      server_->Resume();
      server_->Pause();
      client_->Write("late");
      timer = loop_->timers().After(50 * kMillisecond, [&] {
        EXPECT_EQ(server_ear_.data, "early");
        server_->Resume();
      });
    } else {
      loop_->Stop();
    }
  };
  loop_->Run();
  EXPECT_EQ(server_ear_.data, "earlylate");
}

TEST_F(LoopTest, WhatTheKernelDoesNotTakeIsBufferedAndTheWriterIsTold) {
  Connect();
  const std::string block(1 << 20, 'x');
  size_t sent = 0;
  while (!client_->above_mark()) {
    client_->Write(block);
    sent += block.size();
  }
  EXPECT_GT(client_->buffered(), client_->high_mark());
  client_->Write("the end");
  sent += 7;
  client_->Shutdown();
  client_ear_.on_writable = [&] { EXPECT_LE(client_->buffered(), client_->high_mark() / 2); };
  server_ear_.on_end = [&] { loop_->Stop(); };
  server_->Resume();
  loop_->Run();
  EXPECT_EQ(server_ear_.data.size(), sent);
  EXPECT_TRUE(server_ear_.data.ends_with("xthe end"));
  EXPECT_TRUE(server_ear_.end.ok());
  EXPECT_EQ(client_ear_.writables, 1);
  EXPECT_EQ(client_->buffered(), 0u);
}

TEST_F(LoopTest, AHalfClosedStreamStillTakesTheAnswer) {
  Connect();
  server_ear_.on_end = [&] { server_->Write("answer"); };
  client_ear_.on_data = [&] { loop_->Stop(); };
  server_->Resume();
  client_->Resume();
  client_->Write("question");
  client_->Shutdown();
  loop_->Run();
  EXPECT_EQ(server_ear_.data, "question");
  EXPECT_EQ(client_ear_.data, "answer");
  EXPECT_EQ(server_ear_.ends, 1);
}

TEST_F(LoopTest, AResetIsSeenAsAnErrorOnce) {
  Connect();
  client_ear_.on_end = [&] { loop_->Stop(); };
  client_->Resume();
  server_->Write("cut answer");
  server_->Reset();
  loop_->Run();
  EXPECT_FALSE(client_ear_.end.ok());
  EXPECT_NE(std::string(client_ear_.end.message()).find(listener_->address().text),
            std::string::npos);
  EXPECT_EQ(server_ear_.ends, 0);
}

TEST_F(LoopTest, AFailedWriteIsReportedLaterAndOnce) {
  Connect();
  server_.reset();
  bool inside = false;
  client_ear_.on_end = [&] {
    EXPECT_FALSE(inside);
    loop_->Stop();
  };
  auto timer = loop_->timers().After(20 * kMillisecond, [&] {
    inside = true;
    // The first makes the peer answer with a reset; a later one fails.
    for (int i = 0; i < 3; ++i) {
      client_->Write("x");
      usleep(1000);
    }
    inside = false;
  });
  loop_->Run();
  EXPECT_EQ(client_ear_.ends, 1);
  EXPECT_FALSE(client_ear_.end.ok());
}

TEST_F(LoopTest, AStreamThatIsResetWithBytesLeftToWriteIsLeftAloneByItsLoop) {
  Connect();
  while (!client_->above_mark()) client_->Write(std::string(1 << 20, 'x'));
  int turns = 0;
  TimerQueue::Timer later;
  client_ear_.on_end = [&] {   // And keeps it.
    loop_->BeforeWait([&] { ++turns; });
    later = loop_->timers().After(50 * kMillisecond, [&] { loop_->Stop(); });
  };
  client_->Resume();
  server_->Reset();
  loop_->Run();
  loop_->BeforeWait({});
  EXPECT_EQ(client_ear_.ends, 1);
  EXPECT_FALSE(client_ear_.end.ok());
  EXPECT_LT(turns, 10);
}

TEST_F(LoopTest, AStreamMayGoAwayInEachOfItsCallbacks) {
  Connect();
  server_ear_.on_data = [&] { server_.reset(); };
  server_->Resume();
  client_ear_.on_end = [&] {
    client_.reset();
    loop_->Stop();
  };
  client_->Resume();
  client_->Write(std::string(300000, 'x'));
  loop_->Run();
  EXPECT_EQ(client_, nullptr);

  Connect();
  client_ear_.on_writable = [&] {
    client_.reset();
    loop_->Stop();
  };
  while (!client_->above_mark()) client_->Write(std::string(1 << 20, 'x'));
  server_ear_.on_data = nullptr;
  server_->Resume();
  loop_->Run();
  EXPECT_EQ(client_, nullptr);
}

TEST_F(LoopTest, ADialThatIsRefusedOrCancelledOrTooLateSaysSo) {
  Connect();
  const Address address = listener_->address();
  listener_.reset();
  absl::Status refused;
  dial_ =
      loop_->dialer().Dial(address, kSecond, [&](absl::StatusOr<std::unique_ptr<Stream>> stream) {
        refused = stream.status();
        dial_.reset();
        loop_->Stop();
      });
  EXPECT_TRUE(refused.ok());  // Never from inside the call.
  loop_->Run();
  EXPECT_EQ(refused.code(), absl::StatusCode::kUnavailable) << refused;

  {
    auto cancelled = loop_->dialer().Dial(address, kSecond, [](auto) { FAIL(); });
  }
  // A socket that listens with a full backlog never answers.
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in any{};
  any.sin_family = AF_INET;
  any.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  ASSERT_EQ(bind(fd, reinterpret_cast<sockaddr*>(&any), sizeof(any)), 0);
  ASSERT_EQ(listen(fd, 0), 0);
  socklen_t length = sizeof(any);
  getsockname(fd, reinterpret_cast<sockaddr*>(&any), &length);
  const Address full = Address::From(reinterpret_cast<sockaddr&>(any));
  std::vector<std::unique_ptr<Dialer::Pending>> dials;
  std::vector<std::unique_ptr<Stream>> streams;
  absl::Status late;
  for (int i = 0; i < 4; ++i) {
    dials.push_back(loop_->dialer().Dial(full, 60 * kMillisecond, [&](auto stream) {
      if (stream.ok()) return streams.push_back(*std::move(stream));
      late = stream.status();
      loop_->Stop();
    }));
  }
  loop_->Run();
  EXPECT_EQ(late.code(), absl::StatusCode::kDeadlineExceeded) << late;
  close(fd);
}

TEST_F(LoopTest, PostedTasksRunInOrderOnTheLoopsThread) {
  constexpr int kThreads = 4, kTasks = 2000;
  std::vector<std::vector<int>> seen(kThreads);
  int total = 0;
  const auto self = std::this_thread::get_id();
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < kTasks; ++i) {
        EXPECT_TRUE(loop_->Post([&, t, i] {
          EXPECT_EQ(std::this_thread::get_id(), self);
          seen[t].push_back(i);
          if (++total == kThreads * kTasks) loop_->Stop();
        }));
      }
    });
  }
  loop_->Run();
  for (std::thread& thread : threads) thread.join();
  for (const auto& order : seen) {
    ASSERT_EQ(order.size(), static_cast<size_t>(kTasks));
    EXPECT_TRUE(std::is_sorted(order.begin(), order.end()));
  }
  EXPECT_FALSE(loop_->Post([] {}));  // The loop has ended.
}

TEST_F(LoopTest, TheQueueOfPostedTasksHasALimit) {
  for (size_t i = 0; i < Loop::kPostMax; ++i) ASSERT_TRUE(loop_->Post([] {}));
  EXPECT_FALSE(loop_->Post([] {}));
}

TEST_F(LoopTest, StopFromAnotherThreadEndsTheLoop) {
  std::thread stopper([&] { loop_->Stop(); });
  loop_->Run();
  stopper.join();
}

TEST_F(LoopTest, TimeIsConstantDuringATurnAndTimersAreNotEarly) {
  const MonoTime start = loop_->ReadClock();
  MonoTime fired = 0;
  auto timer = loop_->timers().After(30 * kMillisecond, [&] {
    const MonoTime now = loop_->now();
    while (loop_->ReadClock() < now + 2 * kMillisecond) {
    }
    EXPECT_EQ(loop_->now(), now);
    fired = loop_->ReadClock();
    loop_->Stop();
  });
  Deadline never(
      loop_->deadlines(), [](void*) { FAIL(); }, nullptr);
  never.Set(loop_->now() + 3600 * kSecond);
  loop_->Run();
  EXPECT_GE(fired - start, 30 * kMillisecond);
}

TEST_F(LoopTest, WhatIsDueBeforeWaitingComesAfterAllCallbacksOfAPoll) {
  std::string order;
  TimerQueue::Timer timer;
  loop_->BeforeWait([&] { order += "wait "; });
  loop_->Post([&] { order += "a "; });
  loop_->Post([&] {
    order += "b ";
    timer = loop_->timers().After(0, [&] {
      order += "timer ";
      loop_->Post([&] { loop_->Stop(); });
    });
  });
  loop_->Run();
  EXPECT_EQ(order.substr(0, order.find("timer")), "wait a b ");
  EXPECT_NE(order.find("timer wait "), std::string::npos);
  loop_->BeforeWait({});
  order.clear();
  timer = loop_->timers().After(0, [&] { loop_->Stop(); });
  loop_->Run();
  EXPECT_EQ(order, "");
}

TEST_F(LoopTest, WorkBesideTheLoopComesBackToIt) {
  const auto self = std::this_thread::get_id();
  std::thread::id worked;
  loop_->Offload([&] { worked = std::this_thread::get_id(); },
                 [&] {
                   EXPECT_EQ(std::this_thread::get_id(), self);
                   EXPECT_NE(worked, self);
                   loop_->Stop();
                 });
  loop_->Run();
}

TEST_F(LoopTest, NamesOfThisMachineNeedNobodyToKnowThem) {
  for (const char* name : {"localhost", "engine.localhost"}) {
    loop_->Resolve(name, 8080, [&](absl::StatusOr<std::vector<Address>> addresses) {
      ASSERT_TRUE(addresses.ok()) << addresses.status();
      for (const Address& address : *addresses) EXPECT_TRUE(address.loopback()) << address.text;
      loop_->Stop();
    });
    loop_->Run();
  }
}

TEST_F(LoopTest, NamesAreResolvedOrSaidToBeUnknown) {
  loop_->Resolve("localhost", 8080, [&](absl::StatusOr<std::vector<Address>> addresses) {
    ASSERT_TRUE(addresses.ok()) << addresses.status();
    ASSERT_FALSE(addresses->empty());
    EXPECT_TRUE(addresses->front().loopback());
    EXPECT_EQ(addresses->front().port(), 8080);
    loop_->Stop();
  });
  loop_->Run();
  loop_->Resolve("no-such-name.invalid", 80, [&](absl::StatusOr<std::vector<Address>> addresses) {
    EXPECT_FALSE(addresses.ok());
    EXPECT_NE(std::string(addresses.status().message()).find("no-such-name.invalid"),
              std::string::npos);
    loop_->Stop();
  });
  loop_->Run();
}

TEST_F(LoopTest, ASignalIsHeardWhileItIsWatched) {
  auto watch = loop_->OnSignal(SIGUSR1, [&] { loop_->Stop(); });
  raise(SIGUSR1);
  loop_->Run();
}

TEST_F(LoopTest, ABusyPortSaysSo) {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in any{};
  any.sin_family = AF_INET;
  any.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  ASSERT_EQ(bind(fd, reinterpret_cast<sockaddr*>(&any), sizeof(any)), 0);
  ASSERT_EQ(listen(fd, 1), 0);
  socklen_t length = sizeof(any);
  getsockname(fd, reinterpret_cast<sockaddr*>(&any), &length);
  const auto listener = loop_->Listen(Address::From(reinterpret_cast<sockaddr&>(any)), [](auto) {});
  EXPECT_EQ(listener.status().code(), absl::StatusCode::kAlreadyExists);
  EXPECT_NE(std::string(listener.status().message()).find("port is in use"), std::string::npos);
  close(fd);
}

TEST_F(LoopTest, SeveralLoopsListenOnOnePort) {
  Connect();
  const auto other = Loop::Create();
  auto second = other->Listen(listener_->address(), [](auto) {});
  EXPECT_TRUE(second.ok()) << second.status();
}

TEST_F(LoopTest, WithoutFreeDescriptorsItRestsAndThenAcceptsWhatWaited) {
  Connect();
  SetLogLevel(LogLevel::kOff);
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  ASSERT_EQ(connect(fd, listener_->address().get(), sizeof(sockaddr_in)), 0);
  rlimit before{};
  getrlimit(RLIMIT_NOFILE, &before);
  rlimit none = before;
  none.rlim_cur = 3;
  setrlimit(RLIMIT_NOFILE, &none);
  server_.reset();
  int accepted_early = 0;
  auto timer = loop_->timers().After(50 * kMillisecond, [&] {
    accepted_early = server_ != nullptr;
    setrlimit(RLIMIT_NOFILE, &before);
  });
  loop_->Run();  // Stops at the accept.
  EXPECT_EQ(accepted_early, 0);
  EXPECT_NE(server_, nullptr);
  close(fd);
  SetLogLevel(LogLevel::kInfo);
}

}  // namespace
}  // namespace penstock
