#include "backend-engine/parallel/inet_address.h"

#include <arpa/inet.h>
#include <netdb.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cstring>
#include <memory>

namespace penstock::engine {
namespace {

constexpr size_t kNameMax = 253;  // RFC 1035 2.3.4, as text.

bool IsV6(const std::string& host) {
  in6_addr address;
  return inet_pton(AF_INET6, host.c_str(), &address) == 1;
}

// Letters, digits, dots and hyphens, and the underscores that some names have. What is
// of digits and dots alone is an address or nothing.
bool IsHost(const std::string& host) {
  const auto in_name = [](unsigned char c) { return std::isalnum(c) || c == '.' || c == '-' || c == '_'; };
  const auto in_address = [](unsigned char c) { return std::isdigit(c) || c == '.'; };
  if (host.empty() || host.size() > kNameMax || host.front() == '.' || host.front() == '-') return false;
  if (std::all_of(host.begin(), host.end(), in_address)) {
    in_addr address;
    return inet_pton(AF_INET, host.c_str(), &address) == 1;
  }
  return std::all_of(host.begin(), host.end(), in_name);
}

bool Split(const std::string& place, std::string& host, std::string& port) {
  const size_t colon = place.rfind(':');
  if (colon == std::string::npos) return false;
  host = place.substr(0, colon);
  port = place.substr(colon + 1);
  uint16_t number = 0;
  const char* end = port.data() + port.size();
  const auto [stop, failed] = std::from_chars(port.data(), end, number);
  if (failed != std::errc() || stop != end || number == 0) return false;
  if (host.size() < 2 || host.front() != '[' || host.back() != ']') return IsHost(host);
  host = host.substr(1, host.size() - 2);
  return IsV6(host);
}

}  // namespace

InetAddress InetAddress::Loopback(uint16_t port) {
  sockaddr_in v4{};
  v4.sin_family = AF_INET;
  v4.sin_port = htons(port);
  v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  InetAddress made;
  made.size = sizeof v4;
  std::memcpy(&made.storage, &v4, sizeof v4);
  return made;
}

bool InetAddress::loopback() const {
  if (storage.ss_family == AF_INET6) {
    return IN6_IS_ADDR_LOOPBACK(&reinterpret_cast<const sockaddr_in6&>(storage).sin6_addr);
  }
  constexpr uint32_t kLoopbackNet = 127;
  const uint32_t host = ntohl(reinterpret_cast<const sockaddr_in&>(storage).sin_addr.s_addr);
  return host >> 24 == kLoopbackNet;
}

std::string InetAddress::Text() const {
  char text[INET6_ADDRSTRLEN] = {};
  if (storage.ss_family == AF_INET6) {
    const auto& v6 = reinterpret_cast<const sockaddr_in6&>(storage);
    inet_ntop(AF_INET6, &v6.sin6_addr, text, sizeof text);
    return "[" + std::string(text) + "]:" + std::to_string(ntohs(v6.sin6_port));
  }
  const auto& v4 = reinterpret_cast<const sockaddr_in&>(storage);
  inet_ntop(AF_INET, &v4.sin_addr, text, sizeof text);
  return std::string(text) + ":" + std::to_string(ntohs(v4.sin_port));
}

bool IsPlace(const std::string& place) {
  std::string host, port;
  return Split(place, host, port);
}

std::vector<InetAddress> Resolve(const std::string& place, std::string& error) {
  std::string host, port;
  if (!Split(place, host, port)) {
    error = "no host and port";
    return {};
  }
  addrinfo wanted{};
  wanted.ai_socktype = SOCK_STREAM;
  wanted.ai_flags = AI_NUMERICSERV;
  addrinfo* list = nullptr;
  const int failed = getaddrinfo(host.c_str(), port.c_str(), &wanted, &list);
  const std::unique_ptr<addrinfo, void (*)(addrinfo*)> owned(list, freeaddrinfo);
  if (failed != 0) {
    error = host + ": " + gai_strerror(failed);
    return {};
  }
  std::vector<InetAddress> found;
  for (const addrinfo* one = list; one != nullptr; one = one->ai_next) {
    if (one->ai_family != AF_INET && one->ai_family != AF_INET6) continue;
    InetAddress& address = found.emplace_back();
    address.size = one->ai_addrlen;
    std::memcpy(&address.storage, one->ai_addr, one->ai_addrlen);
  }
  if (found.empty()) error = host + ": it has no address";
  return found;
}

}  // namespace penstock::engine
