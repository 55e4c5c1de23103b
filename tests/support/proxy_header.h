// Headers of the PROXY protocol, version 2, as a balancer makes them.
#pragma once

#include <string>
#include <string_view>

namespace penstock {

inline std::string TwoBytes(size_t number) {
  return {static_cast<char>(number >> 8), static_cast<char>(number & 255)};
}

inline std::string BinaryProxyHeader(int command, int family, std::string_view rest) {
  return std::string("\r\n\r\n\0\r\nQUIT\n", 12) + static_cast<char>(command) + static_cast<char>(family) +
         TwoBytes(rest.size()) + std::string(rest);
}

inline std::string Extension(int type, std::string_view value) {
  return static_cast<char>(type) + TwoBytes(value.size()) + std::string(value);
}

// From 10.0.0.7:4711 to 10.0.0.1:80, and from [fd00::7]:4711 to [::1]:80.
inline std::string V4Addresses() {
  return std::string("\x0a\0\0\x07\x0a\0\0\x01", 8) + TwoBytes(4711) + TwoBytes(80);
}
inline std::string V6Addresses() {
  return "\xfd" + std::string(14, '\0') + "\x07" + std::string(15, '\0') + "\x01" + TwoBytes(4711) + TwoBytes(80);
}

// Of BinaryProxyHeader(0x21, 0x11, V4Addresses() + the checksum alone).
inline constexpr std::string_view kRightChecksum = "\xa5\x66\x35\xc8";

}  // namespace penstock
