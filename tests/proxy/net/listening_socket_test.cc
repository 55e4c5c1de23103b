#include "proxy/net/listening_socket.h"

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <gtest/gtest.h>

namespace penstock {
namespace {

const Address kAny = *Address::Parse("127.0.0.1:0");

bool Connects(const Address& address) {
  const int descriptor = ::socket(AF_INET, SOCK_STREAM, 0);
  const bool connected = ::connect(descriptor, address.get(), sizeof(sockaddr_in)) == 0;
  ::close(descriptor);
  return connected;
}

TEST(ListeningSocket, ListensFromWhenItIsOpenedUntilTheLastDescriptorIsClosed) {
  auto first = ListeningSocket::Open(kAny);
  ASSERT_TRUE(first.ok()) << first.status();
  const Address address = first->address();
  EXPECT_GT(address.port(), 0);
  {
    auto second = first->Duplicate();
    ASSERT_TRUE(second.ok());
    EXPECT_EQ(second->address().text, address.text);
    const ListeningSocket gone = *std::move(first);
    EXPECT_LT(first->descriptor(), 0);
    EXPECT_TRUE(Connects(address));
  }
  EXPECT_FALSE(Connects(address));
}

TEST(ListeningSocket, SharesItsPortWithOthersOfItsKindOnly) {
  const auto one = ListeningSocket::Open(kAny);
  ASSERT_TRUE(one.ok());
  EXPECT_TRUE(ListeningSocket::Open(one->address()).ok());
  const int lonely = ::socket(AF_INET, SOCK_STREAM, 0);
  ASSERT_EQ(::bind(lonely, kAny.get(), sizeof(sockaddr_in)), 0);
  ASSERT_EQ(::listen(lonely, 1), 0);
  const auto taken = ListeningSocket::Take(lonely);
  ASSERT_TRUE(taken.ok());
  const auto second = ListeningSocket::Open(taken->address());
  EXPECT_TRUE(absl::IsAlreadyExists(second.status())) << second.status();
}

TEST(ListeningSocket, InMemoryIsAnAddressWithoutADescriptor) {
  const ListeningSocket socket = ListeningSocket::InMemory(kAny);
  const auto other = socket.Duplicate();
  ASSERT_TRUE(other.ok()) << other.status();
  EXPECT_LT(other->descriptor(), 0);
  EXPECT_EQ(other->address().text, kAny.text);
}

TEST(ListeningSocket, TakesNothingElseAndClosesIt) {
  int ends[2];
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
  EXPECT_FALSE(ListeningSocket::Take(ends[0]).ok());
  EXPECT_LT(::close(ends[0]), 0) << "it is closed already";
  const int idle = ::socket(AF_INET, SOCK_STREAM, 0);  // Does not listen.
  EXPECT_FALSE(ListeningSocket::Take(idle).ok());
  EXPECT_FALSE(ListeningSocket::Take(-1).ok());
  ::close(ends[1]);
}

}  // namespace
}  // namespace penstock
