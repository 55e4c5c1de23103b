// Where a process of a group is to be met: text as an operator writes it, and what
// the system makes of it. (The proxy's Address is not for the compute library, which
// builds without the proxy's libraries.)
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>

#include <string>
#include <vector>

namespace penstock::engine {

// An IPv4 or IPv6 address with its port.
struct InetAddress {
  sockaddr_storage storage{};
  socklen_t size = sizeof(sockaddr_storage);

  static InetAddress Loopback(uint16_t port = 0);  // 127.0.0.1
  sockaddr* get() { return reinterpret_cast<sockaddr*>(&storage); }
  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
  bool loopback() const;
  std::string Text() const;  // "10.0.0.1:7100", "[fd00::1]:7100"
};

// "10.0.0.1:7100", "[fd00::1]:7100", "head-0.head:7100". False: anything else.
bool IsPlace(const std::string& place);

// What the system knows under a place (IsPlace) now, the best first; none: `error` says
// why. Asks name servers, and may wait for them for some seconds.
std::vector<InetAddress> Resolve(const std::string& place, std::string& error);

}  // namespace penstock::engine
