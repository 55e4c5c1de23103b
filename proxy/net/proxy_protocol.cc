#include "proxy/net/proxy_protocol.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>

#include "proxy/base/ip.h"
#include "proxy/net/address.h"

namespace penstock {
namespace {

using Kind = ProxyVerdict::Kind;

constexpr std::string_view kTextStart = "PROXY ";
constexpr size_t kTextMax = 107;            // With CR LF, as the specification counts it.
constexpr std::string_view kSignature("\r\n\r\n\0\r\nQUIT\n", 12);
constexpr size_t kBinaryHead = 16;
constexpr uint8_t kTypeCrc32c = 0x03;
constexpr uint8_t kTypeTls = 0x20;

ProxyVerdict Bad(std::string_view why) { return {Kind::kBad, 0, why}; }

uint8_t ByteAt(std::string_view text, size_t at) { return static_cast<uint8_t>(text[at]); }
size_t NumberAt(std::string_view text, size_t at) {
  return static_cast<size_t>(ByteAt(text, at)) << 8 | ByteAt(text, at + 1);
}

std::string ClientText(int family, const void* ip, uint16_t port) {
  if (family == AF_INET) {
    sockaddr_in v4{};
    v4.sin_family = AF_INET;
    v4.sin_port = htons(port);
    std::memcpy(&v4.sin_addr, ip, sizeof(v4.sin_addr));
    return Address::From(reinterpret_cast<const sockaddr&>(v4)).text;
  }
  sockaddr_in6 v6{};
  v6.sin6_family = AF_INET6;
  v6.sin6_port = htons(port);
  std::memcpy(&v6.sin6_addr, ip, sizeof(v6.sin6_addr));
  return Address::From(reinterpret_cast<const sockaddr&>(v6)).text;
}

// --- version 1: "PROXY TCP4 1.2.3.4 5.6.7.8 4711 80\r\n" ---

// Decimal, no sign, no leading zero.
std::optional<uint16_t> ReadPort(std::string_view text) {
  if (text.empty() || text.size() > 5 || (text.size() > 1 && text.front() == '0')) return std::nullopt;
  uint32_t value = 0;
  for (const char c : text) {
    if (c < '0' || c > '9') return std::nullopt;
    value = value * 10 + static_cast<uint32_t>(c - '0');
  }
  if (value > 65535) return std::nullopt;
  return static_cast<uint16_t>(value);
}

ProxyVerdict ReadTextLine(std::string_view line, size_t length, ProxyHeader& out) {
  std::array<std::string_view, 5> words;
  std::string_view rest = line.substr(kTextStart.size());
  size_t count = 0;
  while (true) {
    const size_t space = rest.find(' ');
    if (count == words.size()) return Bad("its line has too many words");
    words[count++] = rest.substr(0, space);
    if (words[0] == "UNKNOWN") return {Kind::kDone, length, {}};
    if (space == std::string_view::npos) break;
    rest.remove_prefix(space + 1);
  }
  const int family = words[0] == "TCP4" ? AF_INET : words[0] == "TCP6" ? AF_INET6 : AF_UNSPEC;
  if (family == AF_UNSPEC) return Bad("its line names neither TCP4, TCP6 nor UNKNOWN");
  if (count != words.size()) return Bad("its line has too few words");
  const std::optional<uint16_t> port = ReadPort(words[3]);
  for (const std::string_view word : {words[1], words[2]}) {
    const bool v6 = word.find(':') != std::string_view::npos;
    if (!ParseIp(word) || v6 != (family == AF_INET6)) return Bad("an address is not one of its family");
  }
  if (!port || !ReadPort(words[4])) return Bad("a port is no number up to 65535");
  const Ip client = *ParseIp(words[1]);
  out.client = ClientText(family, client.bytes.data() + (family == AF_INET ? 12 : 0), *port);
  return {Kind::kDone, length, {}};
}

ProxyVerdict ReadText(std::string_view bytes, ProxyHeader& out) {
  const std::string_view start = bytes.substr(0, kTextMax);
  const size_t end = start.find_first_of("\r\n");
  if (end == std::string_view::npos) {
    return bytes.size() < kTextMax ? ProxyVerdict{} : Bad("its line is too long");
  }
  if (start[end] == '\n') return Bad("its line does not end with CR LF");
  if (end + 1 >= kTextMax) return Bad("its line is too long");
  if (end + 1 == start.size()) return {};
  if (start[end + 1] != '\n') return Bad("its line does not end with CR LF");
  return ReadTextLine(start.substr(0, end), end + 2, out);
}

// --- version 2 ---

// CRC-32C (Castagnoli), a byte a step.
constexpr auto kCrcTable = [] {
  std::array<uint32_t, 256> table{};
  for (uint32_t i = 0; i < table.size(); ++i) {
    uint32_t value = i;
    for (int bit = 0; bit < 8; ++bit) value = value >> 1 ^ (value & 1 ? 0x82f63b78u : 0u);
    table[i] = value;
  }
  return table;
}();

// Of the header with the four bytes of the checksum itself as zeroes.
uint32_t ChecksumOf(std::string_view header, size_t checksum_at) {
  uint32_t value = ~0u;
  for (size_t i = 0; i < header.size(); ++i) {
    const bool own = i >= checksum_at && i < checksum_at + 4;
    value = value >> 8 ^ kCrcTable[(value ^ (own ? 0 : ByteAt(header, i))) & 255];
  }
  return ~value;
}

// Type, length and value, one after the other, up to the header's end.
ProxyVerdict ReadExtensions(std::string_view header, size_t at, ProxyHeader& out) {
  bool checked = false;
  while (at < header.size()) {
    if (header.size() - at < 3) return Bad("an extension is cut off");
    const uint8_t type = ByteAt(header, at);
    const size_t size = NumberAt(header, at + 1);
    at += 3;
    if (header.size() - at < size) return Bad("an extension is longer than the header");
    if (type == kTypeCrc32c) {
      if (size != 4 || checked) return Bad("its checksum is not one of four bytes");
      checked = true;
      const uint32_t said = static_cast<uint32_t>(NumberAt(header, at) << 16 | NumberAt(header, at + 2));
      if (said != ChecksumOf(header, at)) return Bad("its checksum is wrong");
    }
    // A byte of flags, whose lowest says that the client spoke TLS, and a verdict.
    if (type == kTypeTls) {
      if (size < 5) return Bad("its TLS extension is cut off");
      out.tls = (ByteAt(header, at) & 1) != 0;
    }
    at += size;
  }
  return {Kind::kDone, header.size(), {}};
}

ProxyVerdict ReadBinary(std::string_view bytes, ProxyHeader& out) {
  if (bytes.size() > 12 && (ByteAt(bytes, 12) & 0xf0) != 0x20) return Bad("its version is not 2");
  if (bytes.size() > 12 && (ByteAt(bytes, 12) & 0x0f) > 1) return Bad("its command is not known");
  if (bytes.size() < kBinaryHead) return {};
  const size_t length = kBinaryHead + NumberAt(bytes, 14);
  if (length > kProxyHeaderMax) return Bad("it is longer than 4096 bytes");
  if (bytes.size() < length) return {};
  const std::string_view header = bytes.substr(0, length);
  if (ByteAt(header, 12) == 0x20) return {Kind::kDone, length, {}};  // LOCAL: the rest says nothing.

  const uint8_t family = ByteAt(header, 13);
  struct Layout {
    uint8_t family;
    size_t bytes;                 // Of both addresses and ports.
    int ip;                       // AF_UNSPEC: no address that could stand for a client.
  };
  static constexpr std::array<Layout, 7> kLayouts = {{{0x00, 0, AF_UNSPEC},
                                                      {0x11, 12, AF_INET},
                                                      {0x12, 12, AF_UNSPEC},
                                                      {0x21, 36, AF_INET6},
                                                      {0x22, 36, AF_UNSPEC},
                                                      {0x31, 216, AF_UNSPEC},
                                                      {0x32, 216, AF_UNSPEC}}};
  const auto layout = std::find_if(kLayouts.begin(), kLayouts.end(),
                                   [&](const Layout& one) { return one.family == family; });
  if (layout == kLayouts.end()) return Bad("its family or protocol is not known");
  if (length - kBinaryHead < layout->bytes) return Bad("it is too short for its addresses");
  ProxyHeader read;
  const ProxyVerdict verdict = ReadExtensions(header, kBinaryHead + layout->bytes, read);
  if (verdict.kind == Kind::kBad) return verdict;
  if (layout->ip != AF_UNSPEC) {
    const size_t ip_bytes = layout->ip == AF_INET ? 4 : 16;
    read.client = ClientText(layout->ip, header.data() + kBinaryHead,
                             static_cast<uint16_t>(NumberAt(header, kBinaryHead + 2 * ip_bytes)));
  }
  out = std::move(read);
  return verdict;
}

}  // namespace

ProxyVerdict ReadProxyHeader(std::string_view bytes, ProxyHeader& out) {
  out = {};
  const auto begins = [&](std::string_view with) {
    const size_t size = std::min(bytes.size(), with.size());
    return bytes.substr(0, size) == with.substr(0, size);
  };
  if (begins(kTextStart)) return bytes.size() < kTextStart.size() ? ProxyVerdict{} : ReadText(bytes, out);
  if (begins(kSignature)) return bytes.size() < kSignature.size() ? ProxyVerdict{} : ReadBinary(bytes, out);
  return Bad("the connection begins with neither of its two forms");
}

}  // namespace penstock
