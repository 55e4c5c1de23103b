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

#include <atomic>
#include <cstring>
#include <mutex>
#include <thread>
#include <vector>

#include "backend-engine/parallel/frames.h"
#include "tests/backend-engine/parallel/free_address.h"

namespace penstock::engine {
namespace {

const std::atomic<bool> kGoOn{false};

InetAddress At(const std::string& place) {
  std::string error;
  const auto found = Resolve(place, error);
  EXPECT_FALSE(found.empty()) << error;
  return found.empty() ? InetAddress() : found[0];
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

bool HasV6() {
  InetAddress address = At("[::1]:1");
  const int file = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
  reinterpret_cast<sockaddr_in6&>(address.storage).sin6_port = 0;
  const bool has = file >= 0 && bind(file, address.get(), address.size) == 0;
  close(file);
  return has;
}

TEST(Rendezvous, IsUnderANameOrAnAddressOfEitherKind) {
  for (const std::string host : {"localhost", "127.0.0.1", "[::1]"}) {
    if (host == "[::1]" && !HasV6()) continue;
    const std::string address = FreeAddressAt(host);
    RendezvousOptions first = Of(0, 2, address);
    std::string noted;
    first.note = [&](const std::string& text) { noted += text + "\n"; };
    Met second;
    std::thread thread([&] { second = Meet(Of(1, 2, address)); });
    const Met met = Meet(first);
    thread.join();
    EXPECT_NE(met.rendezvous, nullptr) << met.error;
    EXPECT_NE(second.rendezvous, nullptr) << second.error;
    EXPECT_NE(noted.find("waiting at " + address), std::string::npos) << noted;
    EXPECT_NE(noted.find("which only this machine can reach"), std::string::npos) << noted;
  }
}

TEST(Rendezvous, IsAtAnAddressOfProcess0) {
  const std::string elsewhere = FreeAddressAt("192.0.2.1");  // Of nobody: RFC 5737.
  EXPECT_EQ(Meet(Of(0, 2, elsewhere)).error,
            "cannot listen at " + elsewhere + ": " + elsewhere +
                ": this machine, process 0's, has no such address");
  const std::string nobody(70, 'a');  // No label is so long, so nobody has to be asked.
  EXPECT_EQ(Meet(Of(0, 2, nobody + ":7100")).error.rfind("cannot listen at " + nobody + ":7100: ", 0), 0u);
  RendezvousOptions lost = Of(1, 2, nobody + ":7100");
  lost.timeout_seconds = 0.3;
  EXPECT_NE(Meet(lost).error.find(" within 0 s; " + nobody + ": "), std::string::npos);
}

TEST(Rendezvous, WhoNeverComesIsNamedWhenTheTimeIsUp) {
  RendezvousOptions options = Of(0, 3, FreeAddress());
  options.timeout_seconds = 0.3;
  EXPECT_EQ(Meet(options).error,
            "not all processes met at " + options.address + " within 0 s; missing: 1 2");
  options.index = 1;
  EXPECT_EQ(Meet(options).error, "not all processes met at " + options.address + " within 0 s; " +
                                     options.address + ": Connection refused");
}

// Two processes of this one: they say nothing but what a test lets them say.
struct Two {
  explicit Two(RendezvousOptions options = Of(0, 2, "")) {
    options.address = FreeAddress();
    RendezvousOptions other = options;
    other.index = 1;
    other.offer = 70;
    options.offer = 90;
    std::thread thread([&] { second = Meet(other); });
    first = Meet(options);
    thread.join();
    EXPECT_NE(first.rendezvous, nullptr) << first.error;
    EXPECT_NE(second.rendezvous, nullptr) << second.error;
  }
  Met first, second;
};

std::vector<std::byte> Bytes(size_t count, int value) {
  return std::vector<std::byte>(count, static_cast<std::byte>(value));
}

TEST(Rendezvous, TheSmallestOfferIsAgreedOn) {
  const Two two;
  EXPECT_EQ(two.first.rendezvous->agreed(), 70);
  EXPECT_EQ(two.second.rendezvous->agreed(), 70);
}

// The sizes are above what sockets hold, so that a message comes in pieces.
TEST(Rendezvous, OrdersOfTheFirstComeWholeAndInOrder) {
  RendezvousOptions options = Of(0, 2, "");
  options.message_bytes_max = 20 << 20;
  Two two(options);
  const size_t sizes[] = {0, 1, 5000, 20 << 20, 3};
  std::thread sender([&] {
    for (int i = 0; i < 5; ++i) EXPECT_TRUE(two.first.rendezvous->Send(Bytes(sizes[i], i)));
  });
  std::vector<std::byte> got;
  for (int i = 0; i < 5; ++i) {
    ASSERT_EQ(two.second.rendezvous->Receive(got, 60), Rendezvous::Received::kMessage);
    EXPECT_EQ(got, Bytes(sizes[i], i));
  }
  sender.join();
  EXPECT_EQ(two.second.rendezvous->Receive(got, 0), Rendezvous::Received::kNothing);
}

TEST(Rendezvous, WhoeverWaitsForOrdersHearsThatTheFirstHasEnded) {
  Two two;
  std::string heard;
  two.second.rendezvous->OnLost([&heard](const std::string& why) { heard = why; });
  two.first.rendezvous.reset();
  std::vector<std::byte> got;
  EXPECT_EQ(two.second.rendezvous->Receive(got, 60), Rendezvous::Received::kLost);
  WaitForLoss(*two.second.rendezvous);
  std::string late;
  two.second.rendezvous->OnLost([&late](const std::string& why) { late = why; });
  EXPECT_EQ(late, "process 0 has ended");
  two.second.rendezvous.reset();  // Its thread has said what it had to.
  EXPECT_EQ(heard, "process 0 has ended");
}

TEST(Rendezvous, WhoeverLeavesWithAReasonIsLostWithIt) {
  Two two;
  two.second.rendezvous->Leave("GPU 0: out of memory");
  two.second.rendezvous.reset();
  EXPECT_EQ(WaitForLoss(*two.first.rendezvous), "process 1 has failed: GPU 0: out of memory");
}

TEST(Rendezvous, OrdersThatAreTooManyOrTooLargeLoseTheFirst) {
  RendezvousOptions options = Of(0, 2, "");
  options.message_bytes_max = 4000;
  {
    Two two(options);
    for (size_t i = 0; i <= kRendezvousMessagesMax; ++i) two.first.rendezvous->Send(Bytes(8, 1));
    EXPECT_EQ(WaitForLoss(*two.second.rendezvous),
              "process 0 has sent more than 8 messages that nobody took");
  }
  Two two(options);
  two.first.rendezvous->Send(Bytes(4001, 1));
  EXPECT_EQ(WaitForLoss(*two.second.rendezvous),
            "process 0 says what no process of this group would");
  EXPECT_EQ(WaitForLoss(*two.first.rendezvous),
            "process 0 says what no process of this group would");
  EXPECT_FALSE(two.first.rendezvous->Send(Bytes(8, 1)));
}

TEST(Rendezvous, NobodyGivesOrdersButTheFirst) {
  Two two;
  two.second.rendezvous->Send(Bytes(8, 1));
  EXPECT_EQ(WaitForLoss(*two.first.rendezvous), "process 1 gives orders, as only process 0 may");
}

// Meets process 0 as process 1 would, and then says what a test lets it say.
struct Impostor {
  static constexpr uint32_t kHello = 1, kAlive = 4, kLost = 5;

  explicit Impostor(const std::atomic<bool>& stop = kGoOn) {
    RendezvousOptions options = Of(0, 2, FreeAddress());
    options.message_bytes_max = 64 << 20;
    const InetAddress at = At(options.address);
    std::thread thread([&] {
      std::string id = "the id";
      first = Rendezvous::Meet(options, id, stop, error);
    });
    while (!(socket = FrameSocket::Dial(at, 100)).open()) std::this_thread::yield();
    struct {
      int32_t index = 1, size = 2;
      int64_t offer = 1;
      char facts[kRendezvousFactsMax + 1] = "model m, tp 2";
    } hello;
    EXPECT_TRUE(Say(kHello, {reinterpret_cast<const char*>(&hello), sizeof hello}));
    thread.join();
    EXPECT_NE(first, nullptr) << error;
  }
  bool Say(uint32_t word, const std::string& text) {
    return socket.Send(word, text, [] { return false; });
  }

  FrameSocket socket;
  std::unique_ptr<Rendezvous> first;
  std::string error;
};

TEST(Rendezvous, ALossWithoutAReasonIsOneAllTheSame) {
  Impostor impostor;
  EXPECT_TRUE(impostor.Say(Impostor::kLost, ""));
  EXPECT_TRUE(impostor.first->LostWithin(60, impostor.error));
  EXPECT_EQ(impostor.error, "process 1 has ended");
}

TEST(Rendezvous, WordsOfAnotherProcessDoNothingToATerminal) {
  Impostor impostor;
  EXPECT_TRUE(impostor.Say(Impostor::kLost, "\x1b[2Jgone\nfor good"));
  EXPECT_EQ(WaitForLoss(*impostor.first), "?[2Jgone?for good");
}

TEST(Rendezvous, OneThatNeverStopsTalkingKeepsNobodyFromLeaving) {
  Impostor impostor;
  std::atomic<bool> quiet{false};
  std::thread talker([&] {
    while (!quiet && impostor.socket.Send(Impostor::kAlive, "", [&] { return quiet.load(); })) {
    }
  });
  impostor.first.reset();
  quiet = true;
  talker.join();
}

TEST(Rendezvous, OneThatTakesNothingIsWaitedForNoLongerThanUntilWeStop) {
  std::atomic<bool> stop{false};
  Impostor impostor(stop);
  std::thread sender([&] { EXPECT_FALSE(impostor.first->Send(Bytes(64 << 20, 1))); });
  for (int i = 0; i < 5; ++i) {
    EXPECT_TRUE(impostor.Say(Impostor::kAlive, ""));
    EXPECT_FALSE(impostor.first->LostWithin(0.05, impostor.error)) << impostor.error;
  }
  stop = true;
  sender.join();
  EXPECT_TRUE(impostor.first->Healthy(impostor.error)) << impostor.error;
}

TEST(Rendezvous, StrangersAreTurnedAwayWithAWordAndDoNotDisturbIt) {
  RendezvousOptions options = Of(0, 2, FreeAddress());
  std::mutex mutex;
  std::string notes;
  options.silence_seconds = 1;
  options.note = [&](const std::string& text) {
    const std::lock_guard lock(mutex);
    notes += text + "\n";
  };
  const auto noted = [&](const std::string& text) {
    const std::lock_guard lock(mutex);
    return notes.find(text) != std::string::npos;
  };
  Met first;
  std::thread thread([&] { first = Meet(options); });
  const InetAddress at = At(options.address);
  const int file = socket(AF_INET, SOCK_STREAM, 0);
  while (connect(file, at.get(), at.size) != 0) std::this_thread::yield();
  const std::string request(2000, 'G');
  EXPECT_EQ(send(file, request.data(), request.size(), MSG_NOSIGNAL), 2000);
  const int quiet = socket(AF_INET, SOCK_STREAM, 0);  // Says nothing at all.
  EXPECT_EQ(connect(quiet, at.get(), at.size), 0);
  // One that knows the frames, but not what is said in them.
  FrameSocket odd = FrameSocket::Dial(at, 10000);
  EXPECT_TRUE(odd.Send(1, "hello", [] { return true; }));
  std::string answer;
  char bytes[512];
  for (ssize_t count = 0; (count = recv(file, bytes, sizeof bytes, 0)) > 0;) {
    answer.append(bytes, static_cast<size_t>(count));
  }
  EXPECT_NE(answer.find("penstock-engine: processes of one engine meet here"), std::string::npos);
  while (!noted("it did not say who it is within 1 s")) std::this_thread::yield();
  EXPECT_TRUE(noted("it does not speak as a process of this group does"));
  const Met second = Meet(Of(1, 2, options.address));
  thread.join();
  EXPECT_NE(first.rendezvous, nullptr) << first.error;
  EXPECT_NE(second.rendezvous, nullptr) << second.error;
  EXPECT_TRUE(noted("process 1 has come from 127.0.0.1:"));
  EXPECT_TRUE(noted("all are here"));
  close(file);
  close(quiet);
}

TEST(Rendezvous, AnotherProgramAtTheAddressIsNamed) {
  const std::string address = FreeAddress();
  const InetAddress at = At(address);
  const FrameSocket door = FrameSocket::ListenAt(at, 1);
  ASSERT_TRUE(door.open());
  std::thread other([&] {
    FrameSocket come;
    while (!(come = door.Accept()).open()) door.Wait(1000);
    come.EndPlainly("HTTP/1.1 400 Bad Request\r\n\r\n");
  });
  EXPECT_EQ(Meet(Of(1, 2, address)).error,
            "process 0 at " + address + " is another program, or another version of penstock-engine");
  other.join();
}

TEST(Frames, ABrokenConnectionSendsNothingMore) {
  const InetAddress at = At(FreeAddress());
  const FrameSocket door = FrameSocket::ListenAt(at, 1);
  FrameSocket near = FrameSocket::Dial(at, 10000);
  FrameSocket far;
  while (!(far = door.Accept()).open()) door.Wait(1000);
  const auto at_once = [] { return true; };
  EXPECT_FALSE(near.Send(1, Bytes(64 << 20, 1), at_once));  // More than there is room for.
  EXPECT_FALSE(near.Send(1, "x", at_once));
  EXPECT_FALSE(near.HasRoom());
  uint32_t word = 0;
  std::vector<std::byte> bytes;
  far.Wait(10000);
  EXPECT_EQ(far.Take(1000, word, bytes), FrameSocket::Read::kTooLarge);
  EXPECT_TRUE(bytes.empty());
  EXPECT_EQ(at.Text().substr(0, 10), "127.0.0.1:");
}

TEST(Rendezvous, OptionsThatCannotBeAreRefusedByName) {
  std::string error;
  EXPECT_TRUE(CheckRendezvous(Of(1, 2, "10.0.0.1:7100"), error));
  const std::pair<RendezvousOptions, const char*> wrong[] = {
      {Of(0, 1, "10.0.0.1:7100"), "a group of 1 processes; 2 to 64 can meet"},
      {Of(0, 65, "10.0.0.1:7100"), "a group of 65 processes"},
      {Of(2, 2, "10.0.0.1:7100"), "process 2 of 2; they are counted from 0"},
      {Of(1, 2, "10.0.0.1"), "'10.0.0.1' is no place to meet at; an address or a name and a port are"},
      {Of(1, 2, "fd00::1:7100"), "'fd00::1:7100' is no place"},
      {Of(1, 2, "10.0.0.1:70000"), "is no place"}};
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
