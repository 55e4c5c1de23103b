#include "proxy/net/address.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/in.h>

#include <charconv>
#include <cstring>

#include "proxy/base/status.h"

namespace penstock {
namespace {

absl::Status BadAddress(std::string_view text, std::string_view why) {
  return absl::InvalidArgumentError(
      A(fmt::format("\"{}\": {}; write 127.0.0.1:8080, [::1]:8080 or name:8080",
                    text.substr(0, 100), why)));
}

}  // namespace

uint16_t Address::port() const {
  if (storage.ss_family == AF_INET6) {
    return ntohs(reinterpret_cast<const sockaddr_in6*>(&storage)->sin6_port);
  }
  return ntohs(reinterpret_cast<const sockaddr_in*>(&storage)->sin_port);
}

bool Address::loopback() const {
  if (storage.ss_family == AF_INET6) {
    const auto& v6 = reinterpret_cast<const sockaddr_in6*>(&storage)->sin6_addr;
    if (IN6_IS_ADDR_V4MAPPED(&v6)) return v6.s6_addr[12] == 127;
    return IN6_IS_ADDR_LOOPBACK(&v6);
  }
  if (storage.ss_family != AF_INET) return false;
  return ntohl(reinterpret_cast<const sockaddr_in*>(&storage)->sin_addr.s_addr) >> 24 == 127;
}

Address Address::From(const sockaddr& address) {
  Address result;
  char text[INET6_ADDRSTRLEN] = "?";
  if (address.sa_family == AF_INET6) {
    std::memcpy(&result.storage, &address, sizeof(sockaddr_in6));
    const auto& v6 = reinterpret_cast<const sockaddr_in6&>(address);
    inet_ntop(AF_INET6, &v6.sin6_addr, text, sizeof(text));
    result.text = fmt::format("[{}]:{}", text, ntohs(v6.sin6_port));
  } else if (address.sa_family == AF_INET) {
    std::memcpy(&result.storage, &address, sizeof(sockaddr_in));
    const auto& v4 = reinterpret_cast<const sockaddr_in&>(address);
    inet_ntop(AF_INET, &v4.sin_addr, text, sizeof(text));
    result.text = fmt::format("{}:{}", text, ntohs(v4.sin_port));
  } else {
    result.text = "?";
  }
  return result;
}

absl::StatusOr<Address> Address::Parse(std::string_view text) {
  absl::StatusOr<HostPort> parts = SplitHostPort(text);
  if (!parts.ok()) return parts.status();
  sockaddr_in v4{};
  v4.sin_family = AF_INET;
  v4.sin_port = htons(parts->port);
  if (inet_pton(AF_INET, parts->host.c_str(), &v4.sin_addr) == 1 && text.front() != '[') {
    return From(reinterpret_cast<const sockaddr&>(v4));
  }
  sockaddr_in6 v6{};
  v6.sin6_family = AF_INET6;
  v6.sin6_port = htons(parts->port);
  if (text.front() == '[') {
    if (inet_pton(AF_INET6, parts->host.c_str(), &v6.sin6_addr) == 1) {
      return From(reinterpret_cast<const sockaddr&>(v6));
    }
    return BadAddress(text, "what stands in brackets is no IPv6 address");
  }
  const bool numeric = parts->host.find_first_not_of("0123456789.") == std::string::npos;
  if (numeric) return BadAddress(text, "not an IPv4 address");
  return absl::NotFoundError(A(fmt::format("\"{}\" is a host name", parts->host)));
}

absl::StatusOr<HostPort> SplitHostPort(std::string_view text) {
  HostPort result;
  const size_t colon = text.rfind(':');
  if (colon == std::string_view::npos) return BadAddress(text, "the port is missing");
  std::string_view host = text.substr(0, colon);
  const std::string_view port = text.substr(colon + 1);
  if (!host.empty() && host.front() == '[') {
    if (host.size() < 3 || host.back() != ']') return BadAddress(text, "the bracket is not closed");
    host = host.substr(1, host.size() - 2);
  } else if (host.find(':') != std::string_view::npos) {
    return BadAddress(text, "an IPv6 address stands in brackets");
  }
  if (host.empty()) return BadAddress(text, "the host is missing");
  if (host.size() > 253) return BadAddress(text, "the host is longer than 253 characters");
  for (const char c : host) {
    const bool ok = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                    c == '.' || c == '-' || c == '_' || c == ':';
    if (!ok) return BadAddress(text, "the host has a character that no host name has");
  }
  const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), result.port);
  if (port.empty() || error != std::errc() || end != port.data() + port.size()) {
    return BadAddress(text, "the port is not a number from 0 to 65535");
  }
  result.host = host;
  return result;
}

}  // namespace penstock
