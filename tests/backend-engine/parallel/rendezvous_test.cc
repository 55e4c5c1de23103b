// Processes that meet over the loopback: real ones by fork(), and threads where
// the process makes no difference.
#include "backend-engine/parallel/rendezvous.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <thread>
#include <vector>

namespace penstock::engine {
namespace {

const std::atomic<bool> kGoOn{false};

// A port that was free a moment ago.
std::string FreeAddress() {
  const int file = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  EXPECT_EQ(bind(file, reinterpret_cast<sockaddr*>(&address), size), 0);
  EXPECT_EQ(getsockname(file, reinterpret_cast<sockaddr*>(&address), &size), 0);
  close(file);
  return "127.0.0.1:" + std::to_string(ntohs(address.sin_port));
}

RendezvousOptions Of(int index, int size, const std::string& address) {
  return {.index = index, .size = size, .address = address, .facts = "model m, tp 2",
          .timeout_seconds = 60, .silence_seconds = 2};
}

struct Met {
  std::unique_ptr<Rendezvous> rendezvous;
  std::string id, error;
};
Met Meet(const RendezvousOptions& options) {
  Met met;
  met.id = options.index == 0 ? std::string("the\0id", 6) : "";
  met.rendezvous = Rendezvous::Meet(options, met.id, kGoOn, met.error);
  return met;
}

std::string WaitForLoss(const Rendezvous& rendezvous) {
  std::string error;
  while (rendezvous.Healthy(error)) std::this_thread::yield();
  return error;
}

// Another process: it meets, then lives until it is killed. Exits 3 where it cannot.
pid_t Fork(const RendezvousOptions& options, bool silent) {
  const pid_t child = fork();
  if (child != 0) return child;
  const Met met = Meet(options);
  if (met.rendezvous == nullptr || met.id != std::string("the\0id", 6)) _exit(3);
  if (silent) raise(SIGSTOP);
  WaitForLoss(*met.rendezvous);
  _exit(0);
}

TEST(Rendezvous, TwoProcessesMeetAndADeadOneIsNamedInSeconds) {
  const std::string address = FreeAddress();
  const pid_t child = Fork(Of(1, 2, address), false);
  const Met met = Meet(Of(0, 2, address));
  ASSERT_NE(met.rendezvous, nullptr) << met.error;
  std::string error;
  EXPECT_TRUE(met.rendezvous->Healthy(error)) << error;
  ASSERT_EQ(kill(child, SIGKILL), 0);
  EXPECT_EQ(WaitForLoss(*met.rendezvous), "process 1 has ended");
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_TRUE(WIFSIGNALED(status));
}

TEST(Rendezvous, AProcessThatHangsIsNamedAsSilent) {
  const std::string address = FreeAddress();
  const pid_t child = Fork(Of(1, 2, address), true);
  const Met met = Meet(Of(0, 2, address));
  ASSERT_NE(met.rendezvous, nullptr) << met.error;
  EXPECT_EQ(WaitForLoss(*met.rendezvous), "process 1 has been silent for more than 2 s");
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
}

TEST(Rendezvous, AllHearOfADeathAndOfAnOrderlyEndOfTheFirst) {
  const std::string address = FreeAddress();
  std::vector<Met> met(3);
  std::vector<std::thread> threads;
  for (int index = 0; index < 3; ++index) {
    threads.emplace_back([&, index] {
      met[static_cast<size_t>(index)] = Meet(Of(index, 3, address));
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const Met& one : met) {
    ASSERT_NE(one.rendezvous, nullptr) << one.error;
    EXPECT_EQ(one.id, std::string("the\0id", 6));
  }
  met[2].rendezvous.reset();
  EXPECT_EQ(WaitForLoss(*met[0].rendezvous), "process 2 has ended");
  EXPECT_EQ(WaitForLoss(*met[1].rendezvous), "process 2 has ended");
}

// What the two say of each other where `second` does not fit to process 0.
std::pair<std::string, std::string> Clash(RendezvousOptions second) {
  const std::string address = FreeAddress();
  second.address = address;
  Met other;
  std::thread thread([&] { other = Meet(second); });
  const Met met = Meet(Of(0, 2, address));
  thread.join();
  EXPECT_EQ(met.rendezvous, nullptr);
  EXPECT_EQ(other.rendezvous, nullptr);
  return {met.error, other.error};
}

TEST(Rendezvous, WhoDoesNotFitIsToldWhyAndSoIsTheFirst) {
  RendezvousOptions second = Of(1, 2, "");
  second.facts = "model n, tp 2";
  const auto facts = Clash(second);
  EXPECT_EQ(facts.first, "process 1 serves 'model n, tp 2', process 0 'model m, tp 2'");
  EXPECT_EQ(facts.second, facts.first);
  const auto size = Clash(Of(1, 3, ""));
  EXPECT_EQ(size.first, "one process counts 3 in the group, process 0 2");
  EXPECT_EQ(size.second, size.first);
}

TEST(Rendezvous, WhoNeverComesIsNamedWhenTheTimeIsUp) {
  RendezvousOptions options = Of(0, 3, FreeAddress());
  options.timeout_seconds = 0.3;
  EXPECT_EQ(Meet(options).error,
            "not all processes met at " + options.address + " within 0 s; missing: 1 2");
  options.index = 1;
  EXPECT_EQ(Meet(options).error, "not all processes met at " + options.address + " within 0 s");
}

TEST(Rendezvous, StrangersDoNotDisturbIt) {
  const std::string address = FreeAddress();
  Met first;
  std::thread thread([&] { first = Meet(Of(0, 2, address)); });
  const int port = std::stoi(address.substr(address.find(':') + 1));
  sockaddr_in at{};
  at.sin_family = AF_INET;
  at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  at.sin_port = htons(static_cast<uint16_t>(port));
  const int file = socket(AF_INET, SOCK_STREAM, 0);
  while (connect(file, reinterpret_cast<sockaddr*>(&at), sizeof at) != 0) std::this_thread::yield();
  const std::string request(2000, 'G');
  EXPECT_EQ(send(file, request.data(), request.size(), MSG_NOSIGNAL), 2000);
  const int quiet = socket(AF_INET, SOCK_STREAM, 0);  // Says nothing at all.
  EXPECT_EQ(connect(quiet, reinterpret_cast<sockaddr*>(&at), sizeof at), 0);
  const Met second = Meet(Of(1, 2, address));
  thread.join();
  EXPECT_NE(first.rendezvous, nullptr) << first.error;
  EXPECT_NE(second.rendezvous, nullptr) << second.error;
  close(file);
  close(quiet);
}

TEST(Rendezvous, OptionsThatCannotBeAreRefusedByName) {
  std::string error;
  EXPECT_TRUE(CheckRendezvous(Of(1, 2, "10.0.0.1:7100"), error));
  const std::pair<RendezvousOptions, const char*> wrong[] = {
      {Of(0, 1, "10.0.0.1:7100"), "a group of 1 processes; 2 to 64 can meet"},
      {Of(0, 65, "10.0.0.1:7100"), "a group of 65 processes"},
      {Of(2, 2, "10.0.0.1:7100"), "process 2 of 2; they are counted from 0"},
      {Of(1, 2, "10.0.0.1"), "'10.0.0.1' is no address to meet at"},
      {Of(1, 2, "host:7100"), "'host:7100' is no address"},
      {Of(1, 2, "10.0.0.1:70000"), "is no address"},
      {Of(1, 2, "10.0.0.1:0"), "is no address"}};
  for (const auto& [options, text] : wrong) {
    EXPECT_FALSE(CheckRendezvous(options, error));
    EXPECT_NE(error.find(text), std::string::npos) << error;
  }
  RendezvousOptions options = Of(1, 2, "10.0.0.1:7100");
  options.facts.assign(512, 'x');
  EXPECT_FALSE(CheckRendezvous(options, error));
  options = Of(1, 2, "10.0.0.1:7100");
  options.silence_seconds = 0;
  EXPECT_FALSE(CheckRendezvous(options, error));
  std::string none;
  EXPECT_EQ(Rendezvous::Meet(Of(0, 2, FreeAddress()), none, kGoOn, error), nullptr);
  EXPECT_NE(error.find("brings an id"), std::string::npos);
}

TEST(Rendezvous, AWaitEndsWhenItIsCalledOff) {
  std::atomic<bool> stop{false};
  std::string id = "x", error;
  std::thread thread([&] { stop = true; });
  EXPECT_EQ(Rendezvous::Meet(Of(0, 2, FreeAddress()), id, stop, error), nullptr);
  thread.join();
  EXPECT_EQ(error, "stopped while waiting for other processes");
}

}  // namespace
}  // namespace penstock::engine
