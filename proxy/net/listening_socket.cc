#include "proxy/net/listening_socket.h"

#include <errno.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstring>

#include "proxy/base/status.h"

namespace penstock {
namespace {

constexpr int kBacklog = 4096;  // The kernel takes no more than net.core.somaxconn.
// What the kernel keeps of an answer that the client's window has no room for: else up to
// the 4 MiB of net.ipv4.tcp_wmem, of each client that does not read.
constexpr int kUnsentMax = 256 * 1024;

absl::Status ListenError(const Address& address, int error) {
  if (error == EADDRINUSE) {
    return absl::AlreadyExistsError(A(fmt::format(
        "{}: the port is in use by another program; stop that one or listen elsewhere",
        address.text)));
  }
  if (error == EACCES) {
    return absl::PermissionDeniedError(A(fmt::format(
        "{}: not allowed to listen there; ports below 1024 need CAP_NET_BIND_SERVICE",
        address.text)));
  }
  if (error == EADDRNOTAVAIL) {
    return absl::UnavailableError(
        A(fmt::format("{}: this machine does not have that address", address.text)));
  }
  return absl::UnavailableError(A(fmt::format("{}: listen: {}", address.text, strerror(error))));
}

// -1 with errno set, or a socket that is bound and listens.
int Bound(const Address& address) {
  const int family = address.storage.ss_family;
  const int descriptor = ::socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (descriptor < 0) return -1;
  const int on = 1;
  setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  setsockopt(descriptor, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on));
  // Each family for itself: [::]:80 beside 0.0.0.0:80 is no conflict.
  if (family == AF_INET6) setsockopt(descriptor, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on));
  const socklen_t length = family == AF_INET6 ? sizeof(sockaddr_in6) : sizeof(sockaddr_in);
  if (bind(descriptor, address.get(), length) == 0 && listen(descriptor, kBacklog) == 0) {
    return descriptor;
  }
  const int error = errno;
  close(descriptor);
  errno = error;
  return -1;
}

}  // namespace

absl::StatusOr<ListeningSocket> ListeningSocket::Open(const Address& address) {
  const int descriptor = Bound(address);
  if (descriptor < 0) return ListenError(address, errno);
  return Take(descriptor);
}

absl::StatusOr<ListeningSocket> ListeningSocket::Take(int descriptor) {
  ListeningSocket socket(descriptor, {});
  int listening = 0;
  socklen_t size = sizeof(listening);
  if (getsockopt(descriptor, SOL_SOCKET, SO_ACCEPTCONN, &listening, &size) != 0 || listening == 0) {
    return absl::InvalidArgumentError(
        A(fmt::format("descriptor {} is no socket that listens", descriptor)));
  }
  sockaddr_storage bound{};
  socklen_t length = sizeof(bound);
  if (getsockname(descriptor, reinterpret_cast<sockaddr*>(&bound), &length) != 0 ||
      (bound.ss_family != AF_INET && bound.ss_family != AF_INET6)) {
    return absl::InvalidArgumentError(
        A(fmt::format("descriptor {} listens on no TCP port", descriptor)));
  }
  // Its connections inherit this, without a call for each.
  setsockopt(descriptor, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &kUnsentMax, sizeof(kUnsentMax));
  fcntl(descriptor, F_SETFD, FD_CLOEXEC);
  fcntl(descriptor, F_SETFL, fcntl(descriptor, F_GETFL) | O_NONBLOCK);
  socket.address_ = Address::From(reinterpret_cast<const sockaddr&>(bound));
  return socket;
}

ListeningSocket& ListeningSocket::operator=(ListeningSocket&& other) noexcept {
  std::swap(descriptor_, other.descriptor_);
  std::swap(address_, other.address_);
  return *this;
}

ListeningSocket::~ListeningSocket() {
  if (descriptor_ >= 0) close(descriptor_);
}

absl::StatusOr<ListeningSocket> ListeningSocket::Duplicate() const {
  if (descriptor_ < 0) return InMemory(address_);
  const int other = fcntl(descriptor_, F_DUPFD_CLOEXEC, 0);
  if (other < 0) return ListenError(address_, errno);
  return ListeningSocket(other, address_);
}

}  // namespace penstock
