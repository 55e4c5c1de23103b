// IP addresses and ranges of them, as text says them: who is trusted, whose word counts.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>

namespace penstock {

// IPv4 as ::ffff:a.b.c.d, so that one client has one value.
struct Ip {
  std::array<uint8_t, 16> bytes{};
  bool operator==(const Ip&) const = default;
};

// "10.0.0.7", "::1"; no brackets, no port, no zone.
std::optional<Ip> ParseIp(std::string_view text);

struct IpRange {
  Ip base;
  int bits = 128;
  bool Contains(const Ip& ip) const;
};

// "10.0.0.0/8", "fd00::/8", "10.0.0.7": bits beyond the prefix must be zero.
std::optional<IpRange> ParseIpRange(std::string_view text);

// Of "10.0.0.7:4711" or "[::1]:4711", as streams name their peers: what stands before
// the port, without brackets.
std::string_view IpOfPeer(std::string_view peer);

}  // namespace penstock
