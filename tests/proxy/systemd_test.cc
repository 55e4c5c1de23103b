#include "proxy/systemd.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <string>

#include <gtest/gtest.h>

namespace penstock {
namespace {

// The supervisor's end: what it is told, one message a call; "" for none.
class Supervisor {
 public:
  explicit Supervisor(const std::string& name)
      : descriptor_(::socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, name.data(), name.size());
    if (name[0] == '@') address.sun_path[0] = '\0';
    const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + name.size());
    EXPECT_EQ(::bind(descriptor_, reinterpret_cast<const sockaddr*>(&address), size), 0);
    ::setenv("NOTIFY_SOCKET", name.c_str(), 1);
  }
  ~Supervisor() {
    ::close(descriptor_);
    ::unsetenv("NOTIFY_SOCKET");
  }
  std::string Hear() {
    char text[256];
    const ssize_t size = ::recv(descriptor_, text, sizeof(text), 0);
    return size < 0 ? "" : std::string(text, static_cast<size_t>(size));
  }

 private:
  const int descriptor_;
};

TEST(Systemd, IsToldThroughAPathAndThroughAnAbstractName) {
  const std::string path = testing::TempDir() + "/notify-" + std::to_string(getpid());
  for (const std::string& name : {path, "@penstock-test-" + std::to_string(getpid())}) {
    Supervisor supervisor(name);
    Notify("READY=1");
    Notify("MAINPID=7");
    EXPECT_EQ(supervisor.Hear(), "READY=1");
    EXPECT_EQ(supervisor.Hear(), "MAINPID=7");
    EXPECT_EQ(supervisor.Hear(), "");
  }
  ::unlink(path.c_str());
}

TEST(Systemd, NobodyToTellIsNoHarm) {
  Notify("READY=1");
  for (const std::string& name : {std::string("x"), std::string(300, 'x'), std::string("/nowhere")}) {
    ::setenv("NOTIFY_SOCKET", name.c_str(), 1);
    Notify("READY=1");
  }
  ::unsetenv("NOTIFY_SOCKET");
}

TEST(Systemd, SocketsOfAnotherProcessAreNotOurs) {
  ::setenv("LISTEN_FDS", "1", 1);
  ::setenv("LISTEN_PID", "1", 1);
  EXPECT_TRUE(PassedSockets().empty());
  EXPECT_EQ(::getenv("LISTEN_FDS"), nullptr) << "nor those of a child of ours";
  EXPECT_TRUE(PassedSockets().empty());
}

TEST(Systemd, SocketsThatItOpenedAreTaken) {
  // Descriptors from 3 on belong to the test's own runtime; what is there is kept.
  const int kept = ::dup(3);
  auto socket = ListeningSocket::Open(*Address::Parse("127.0.0.1:0"));
  ASSERT_TRUE(socket.ok());
  ASSERT_EQ(::dup2(socket->descriptor(), 3), 3);
  ::setenv("LISTEN_FDS", "1", 1);
  ::setenv("LISTEN_PID", std::to_string(getpid()).c_str(), 1);
  {
    const auto passed = PassedSockets();
    ASSERT_EQ(passed.size(), 1u);
    EXPECT_EQ(passed[0].address().text, socket->address().text);
    EXPECT_EQ(::fcntl(passed[0].descriptor(), F_GETFD), FD_CLOEXEC);
  }
  if (kept >= 0) {
    ::dup2(kept, 3);
    ::close(kept);
  }
}

}  // namespace
}  // namespace penstock
