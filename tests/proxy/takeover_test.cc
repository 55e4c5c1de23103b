#include "proxy/takeover.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <string>
#include <thread>

#include <gtest/gtest.h>

namespace penstock {
namespace {

ListeningSocket AnySocket() { return *ListeningSocket::Open(*Address::Parse("127.0.0.1:0")); }

std::vector<ListeningSocket> Some(size_t count) {
  std::vector<ListeningSocket> sockets;
  for (size_t i = 0; i < count; ++i) sockets.push_back(AnySocket());
  return sockets;
}

std::string PathFor(const char* name) {
  return testing::TempDir() + "/takeover-" + std::to_string(getpid()) + "-" + name;
}

TEST(Takeover, SocketsArriveWithTheirAddressesAndInOrder) {
  auto ends = *TakeoverChannel::Pair();
  const auto sockets = Some(TakeoverChannel::kSocketsMax);
  ASSERT_TRUE(ends.first.Send("listen a:1", sockets));
  const auto said = ends.second.Receive(true);
  ASSERT_TRUE(said.ok()) << said.status();
  EXPECT_EQ(said->text, "listen a:1");
  ASSERT_EQ(said->sockets.size(), sockets.size());
  for (size_t i = 0; i < sockets.size(); ++i) {
    EXPECT_EQ(said->sockets[i].address().text, sockets[i].address().text);
    EXPECT_NE(said->sockets[i].descriptor(), sockets[i].descriptor());
  }
}

TEST(Takeover, MoreSocketsThanAMessageHoldsAreNotSent) {
  auto ends = *TakeoverChannel::Pair();
  EXPECT_FALSE(ends.first.Send("listen a:1", Some(TakeoverChannel::kSocketsMax + 1)));
  EXPECT_TRUE(absl::IsUnavailable(ends.second.Receive(false).status()));
}

TEST(Takeover, TheNewProcessAsksAndTakesAllThereIs) {
  auto ends = *TakeoverChannel::Pair();
  std::thread old([&] {
    const auto asked = ends.first.Receive(true);
    ASSERT_TRUE(asked.ok());
    EXPECT_EQ(asked->text, "take 1 keys operator");
    EXPECT_TRUE(ends.first.Send("listen 127.0.0.1:80", Some(2)));
    EXPECT_TRUE(ends.first.Send("listen admin 127.0.0.1:90", Some(1)));
    EXPECT_TRUE(ends.first.Send(std::string_view("keys \0\xff secret", 14)));
    EXPECT_TRUE(ends.first.Send(ToMessage({"breaker/open", "a pool", "b\nc"})));
    EXPECT_TRUE(ends.first.Send("end"));
  });
  auto taken = TakeAll(ends.second);
  old.join();
  ASSERT_TRUE(taken.ok()) << taken.status();
  ASSERT_EQ(taken->sockets.size(), 2u);
  EXPECT_EQ(taken->sockets.at("127.0.0.1:80").size(), 2u);
  EXPECT_EQ(taken->sockets.at("admin 127.0.0.1:90").size(), 1u);
  EXPECT_EQ(taken->keys, std::string_view("\0\xff secret", 9));
  Wipe(taken->keys);
  EXPECT_EQ(taken->keys, "");
  ASSERT_EQ(taken->words.size(), 1u);
  EXPECT_EQ(taken->words[0].word, "breaker/open");
  EXPECT_EQ(taken->words[0].pool, "a pool");
  EXPECT_EQ(taken->words[0].backend, "b\nc");
}

TEST(Takeover, AnOldProcessThatEndsOrTalksNonsenseIsAnError) {
  for (const char* answer : {"", "no", "listenx", "\n"}) {
    auto ends = *TakeoverChannel::Pair();
    if (*answer != '\0') EXPECT_TRUE(ends.first.Send(answer));
    else ends.first.Close();
    EXPECT_FALSE(TakeAll(ends.second).ok()) << answer;
  }
}

TEST(Takeover, TheEndOfTheOtherProcessIsAnEmptyMessage) {
  auto ends = *TakeoverChannel::Pair();
  EXPECT_TRUE(absl::IsUnavailable(ends.first.Receive(false).status()));
  ends.second.Close();
  const auto said = ends.first.Receive(false);
  ASSERT_TRUE(said.ok());
  EXPECT_EQ(said->text, "");
  EXPECT_FALSE(ends.first.Send("ready"));
}

TEST(Takeover, APathLeadsToTheLatestOfferAndIsForItsUserAlone) {
  const std::string path = PathFor("path");
  EXPECT_TRUE(absl::IsNotFound(TakeoverChannel::Ask(path).status()));
  auto first = TakeoverChannel::Offer(path);
  ASSERT_TRUE(first.ok()) << first.status();
  struct stat status {};
  ASSERT_EQ(::stat(path.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0600u);
  auto second = TakeoverChannel::Offer(path);
  ASSERT_TRUE(second.ok());
  auto asking = TakeoverChannel::Ask(path);
  ASSERT_TRUE(asking.ok()) << asking.status();
  EXPECT_FALSE(first->Accept().open());
  TakeoverChannel asked = second->Accept();
  ASSERT_TRUE(asked.open());
  EXPECT_EQ(asked.peer(), getpid());
  // One that nobody serves any more is as good as none.
  second->Close();
  EXPECT_TRUE(absl::IsNotFound(TakeoverChannel::Ask(path).status()));
  ::unlink(path.c_str());
}

TEST(Takeover, APathThatCannotBeIsAnError) {
  EXPECT_TRUE(absl::IsInvalidArgument(TakeoverChannel::Offer(std::string(200, 'x')).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(TakeoverChannel::Ask("").status()));
  EXPECT_FALSE(TakeoverChannel::Offer("/nowhere/at/all").ok());
}

TEST(Takeover, AChildProcessFindsItsEnd) {
  auto ends = *TakeoverChannel::Pair();
  const auto started = StartHeir(
      {"sh", "-c", "test -S /dev/fd/$PENSTOCK_TAKEOVER_FD && test -z \"$LISTEN_FDS\""},
      std::move(ends.second));
  ASSERT_TRUE(started.ok()) << started.status();
  int status = -1;
  ASSERT_EQ(::waitpid(*started, &status, 0), *started);
  EXPECT_EQ(status, 0);
  EXPECT_FALSE(StartHeir({"/nowhere/at/all"}, std::move(ends.first)).ok());
}

TEST(Takeover, OnlyASocketIsTakenForTheEndThatWasGiven) {
  EXPECT_FALSE(GivenChannel().open());
  for (const char* given : {"", "x", "-1", "99999", "0"}) {
    ::setenv("PENSTOCK_TAKEOVER_FD", given, 1);
    EXPECT_FALSE(GivenChannel().open()) << given;
    EXPECT_EQ(::getenv("PENSTOCK_TAKEOVER_FD"), nullptr);
  }
  auto ends = *TakeoverChannel::Pair();
  ::setenv("PENSTOCK_TAKEOVER_FD", std::to_string(::dup(ends.second.descriptor())).c_str(), 1);
  TakeoverChannel given = GivenChannel();
  ASSERT_TRUE(given.open());
  EXPECT_TRUE(given.Send("here"));
  EXPECT_EQ(ends.first.Receive(true)->text, "here");
}

}  // namespace
}  // namespace penstock
