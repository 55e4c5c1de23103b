// A socket address and its text. Host names become addresses by Loop::Resolve.
#pragma once

#include <sys/socket.h>

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace penstock {

struct Address {
  sockaddr_storage storage{};
  std::string text;  // "127.0.0.1:8080", "[::1]:8080".

  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
  uint16_t port() const;
  bool loopback() const;

  // Of a sockaddr of either family; the text is made from it.
  static Address From(const sockaddr& address);
  // "1.2.3.4:80", "[::1]:80"; a host name is NotFound, anything else InvalidArgument.
  static absl::StatusOr<Address> Parse(std::string_view text);
};

// "name:80" -> {"name", 80}; "[::1]:80" -> {"::1", 80}. InvalidArgument otherwise.
struct HostPort {
  std::string host;
  uint16_t port = 0;
};
absl::StatusOr<HostPort> SplitHostPort(std::string_view text);

}  // namespace penstock
