#include "proxy/base/ip.h"

#include <arpa/inet.h>

#include <charconv>
#include <cstring>

namespace penstock {
namespace {

constexpr int kMappedBits = 96;   // What stands before an IPv4 address.

bool BitOf(const Ip& ip, int bit) { return (ip.bytes[bit / 8] >> (7 - bit % 8) & 1) != 0; }

}  // namespace

std::optional<Ip> ParseIp(std::string_view text) {
  char copy[INET6_ADDRSTRLEN];
  if (text.empty() || text.size() >= sizeof(copy)) return std::nullopt;
  if (text.find('\0') != std::string_view::npos) return std::nullopt;
  std::memcpy(copy, text.data(), text.size());
  copy[text.size()] = '\0';
  Ip ip;
  if (text.find(':') != std::string_view::npos) {
    if (inet_pton(AF_INET6, copy, ip.bytes.data()) != 1) return std::nullopt;
    return ip;
  }
  ip.bytes[10] = ip.bytes[11] = 0xff;
  if (inet_pton(AF_INET, copy, ip.bytes.data() + 12) != 1) return std::nullopt;
  return ip;
}

bool IpRange::Contains(const Ip& ip) const {
  const size_t whole = static_cast<size_t>(bits / 8);
  if (std::memcmp(base.bytes.data(), ip.bytes.data(), whole) != 0) return false;
  const int rest = bits % 8;
  return rest == 0 || (base.bytes[whole] ^ ip.bytes[whole]) >> (8 - rest) == 0;
}

std::optional<IpRange> ParseIpRange(std::string_view text) {
  const size_t slash = text.find('/');
  const std::optional<Ip> base = ParseIp(text.substr(0, slash));
  if (!base) return std::nullopt;
  const bool v4 = text.find(':') == std::string_view::npos;
  IpRange range{*base, 128};
  if (slash != std::string_view::npos) {
    const std::string_view digits = text.substr(slash + 1);
    int bits = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), bits);
    if (digits.empty() || digits.front() == '-' || error != std::errc() ||
        end != digits.data() + digits.size() || bits > (v4 ? 32 : 128)) {
      return std::nullopt;
    }
    range.bits = v4 ? kMappedBits + bits : bits;
  }
  for (int bit = range.bits; bit < 128; ++bit) {
    if (BitOf(*base, bit)) return std::nullopt;
  }
  return range;
}

std::string_view IpOfPeer(std::string_view peer) {
  std::string_view ip = peer.substr(0, peer.rfind(':'));
  if (ip.size() >= 2 && ip.front() == '[' && ip.back() == ']') ip = ip.substr(1, ip.size() - 2);
  return ip;
}

}  // namespace penstock
