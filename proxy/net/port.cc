#include "proxy/net/port.h"

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>

#include <fmt/format.h>

namespace penstock {

absl::Status CheckPortFree(const Address& address) {
  const int descriptor = ::socket(address.get()->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (descriptor < 0) return absl::OkStatus();  // Listening itself will say what is wrong.
  const int one = 1;
  // Connections of a program that has just ended do not hold the port.
  ::setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  const bool v6 = address.get()->sa_family == AF_INET6;
  if (v6) ::setsockopt(descriptor, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one);
  const socklen_t size = v6 ? sizeof(sockaddr_in6) : sizeof(sockaddr_in);
  const int failed = ::bind(descriptor, address.get(), size);
  const int error = errno;
  ::close(descriptor);
  if (failed != 0 && error == EADDRINUSE) {
    return absl::AlreadyExistsError(
        fmt::format("{}: the port is in use by another program; stop that one or listen elsewhere",
                    address.text));
  }
  return absl::OkStatus();
}

}  // namespace penstock
