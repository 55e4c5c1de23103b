// Real sockets: what a listener does with connections that come when it may not, or
// may no longer, take them; and a loop that was stopped together with its process.
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "proxy/net/loop.h"

namespace penstock {
namespace {

// A client that connects as soon as the kernel lets it.
class Client {
 public:
  explicit Client(const Address& address)
      : descriptor_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    EXPECT_EQ(::connect(descriptor_, address.get(), sizeof(sockaddr_in)), 0);
  }
  ~Client() { ::close(descriptor_); }
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

 private:
  const int descriptor_;
};

class ListenerTest : public testing::Test {
 protected:
  ListenerTest() : loop_(Loop::Create()) {
    auto listener = loop_->Listen(*Address::Parse("127.0.0.1:0"), [this](std::unique_ptr<Stream> stream) {
      streams_.push_back(std::move(stream));
      if (on_accept_) on_accept_();
    });
    EXPECT_TRUE(listener.ok());
    listener_ = *std::move(listener);
  }
  ~ListenerTest() override {
    timer_.Cancel();
    streams_.clear();
    listener_.reset();
  }
  void Connect(int count) {
    for (int i = 0; i < count; ++i) clients_.push_back(std::make_unique<Client>(listener_->address()));
  }
  // Runs for a moment, in which everything that is ready happens.
  void RunForAMoment() {
    timer_ = loop_->timers().After(50 * kMillisecond, [this] { loop_->Stop(); });
    loop_->Run();
  }

  std::unique_ptr<Loop> loop_;
  std::unique_ptr<Listener> listener_;
  std::vector<std::unique_ptr<Stream>> streams_;
  std::vector<std::unique_ptr<Client>> clients_;
  std::function<void()> on_accept_;
  TimerQueue::Timer timer_;
};

TEST_F(ListenerTest, WhileItIsPausedConnectionsWaitInTheKernel) {
  listener_->Pause();
  Connect(5);
  RunForAMoment();
  EXPECT_EQ(streams_.size(), 0u);
  listener_->Resume();
  listener_->Resume();
  RunForAMoment();
  EXPECT_EQ(streams_.size(), 5u);
}

TEST_F(ListenerTest, APauseInTheMiddleTakesNoOneMore) {
  on_accept_ = [this] {
    if (streams_.size() == 2) listener_->Pause();
  };
  Connect(10);
  RunForAMoment();
  EXPECT_EQ(streams_.size(), 2u);
  on_accept_ = nullptr;
  listener_->Resume();
  RunForAMoment();
  EXPECT_EQ(streams_.size(), 10u);
}

TEST_F(ListenerTest, BeforeItGoesItTakesWhatWaits) {
  listener_->Pause();
  Connect(100);
  listener_->AcceptWaiting();
  EXPECT_EQ(streams_.size(), 100u);
  listener_.reset();
  RunForAMoment();
}

TEST_F(ListenerTest, ASocketThatListensAlreadyHasItsConnections) {
  auto socket = ListeningSocket::Open(*Address::Parse("127.0.0.1:0"));
  ASSERT_TRUE(socket.ok());
  const Client early(socket->address());
  const auto other = loop_->Listen(*std::move(socket), [this](std::unique_ptr<Stream> stream) {
    streams_.push_back(std::move(stream));
  });
  RunForAMoment();
  EXPECT_EQ(streams_.size(), 1u);
}

// The handler stands for a stop of the whole process: the poll is interrupted, time
// passes, and a byte comes meanwhile.
int late_byte_to = -1;
void StopAWhile(int) {
  EXPECT_EQ(::write(late_byte_to, "x", 1), 1);
  ::poll(nullptr, 0, 1600);
}

TEST(LateTurn, WhatHasComeMeanwhileIsReadBeforeDeadlinesPass) {
  const auto loop = Loop::Create();
  int ends[2];
  ASSERT_EQ(::pipe(ends), 0);
  late_byte_to = ends[1];
  std::string order;
  const auto watch = loop->OnReadable(ends[0], [&] {
    char byte;
    if (::read(ends[0], &byte, 1) == 1) order += "byte ";
  });
  Deadline deadline(loop->deadlines(), [](void* said) { *static_cast<std::string*>(said) += "deadline "; }, &order);
  deadline.Set(loop->now() + 300 * kMillisecond);
  TimerQueue::Timer timer = loop->timers().After(400 * kMillisecond, [&] {
    order += "timer ";
    loop->Stop();
  });
  struct sigaction action {}, before {};
  action.sa_handler = StopAWhile;
  ASSERT_EQ(sigaction(SIGALRM, &action, &before), 0);
  const itimerval soon{{0, 0}, {0, 100'000}};
  ASSERT_EQ(setitimer(ITIMER_REAL, &soon, nullptr), 0);
  loop->Run();
  sigaction(SIGALRM, &before, nullptr);
  EXPECT_EQ(order, "byte deadline timer ");
  ::close(ends[0]);
  ::close(ends[1]);
}

TEST(OnReadable, CallsWhileThereIsSomethingAndWhenTheOtherEndGoes) {
  const auto loop = Loop::Create();
  int ends[2];
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
  int calls = 0;
  auto watch = loop->OnReadable(ends[0], [&] {
    char bytes[16];
    const ssize_t size = ::read(ends[0], bytes, sizeof(bytes));
    if (++calls == 1) {
      EXPECT_EQ(size, 1);
      ::close(ends[1]);
    } else {
      EXPECT_EQ(size, 0);
      loop->Stop();
    }
  });
  ASSERT_EQ(::write(ends[1], "x", 1), 1);
  loop->Run();
  EXPECT_GE(calls, 2);  // Once more, maybe, before the loop has stopped.
  watch.reset();
  ::close(ends[0]);
}

}  // namespace
}  // namespace penstock
