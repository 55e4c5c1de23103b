#include "proxy/systemd.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <charconv>
#include <cstddef>
#include <cstdlib>
#include <cstring>

#include "proxy/base/log.h"
#include "proxy/base/status.h"

namespace penstock {
namespace {

constexpr int kFirst = 3;  // SD_LISTEN_FDS_START.
constexpr int kPassedMax = 64;

int NumberOf(const char* variable) {
  const char* const text = std::getenv(variable);
  int number = 0;
  if (text != nullptr) std::from_chars(text, text + std::strlen(text), number);
  return number;
}

}  // namespace

void Notify(std::string_view state) {
  const char* const path = std::getenv("NOTIFY_SOCKET");
  if (path == nullptr) return;
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const size_t length = std::strlen(path);
  if (length < 2 || length >= sizeof(address.sun_path)) return;
  std::memcpy(address.sun_path, path, length);
  if (path[0] == '@') address.sun_path[0] = '\0';  // An abstract name.
  const int descriptor = ::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (descriptor < 0) return;
  ::sendto(descriptor, state.data(), state.size(), MSG_DONTWAIT | MSG_NOSIGNAL,
           reinterpret_cast<const sockaddr*>(&address),
           static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + length));
  ::close(descriptor);
}

std::vector<ListeningSocket> PassedSockets() {
  std::vector<ListeningSocket> sockets;
  const int count = NumberOf("LISTEN_FDS");
  const bool ours = NumberOf("LISTEN_PID") == getpid();
  for (const char* variable : {"LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"}) ::unsetenv(variable);
  for (int i = 0; ours && i < count && i < kPassedMax; ++i) {
    absl::StatusOr<ListeningSocket> socket = ListeningSocket::Take(kFirst + i);
    if (socket.ok()) {
      sockets.push_back(*std::move(socket));
    } else {
      LogWarn("a passed socket is left alone: {}", S(socket.status().message()));
    }
  }
  return sockets;
}

}  // namespace penstock
