#include "backend-engine/text/byte_level.h"

#include <array>

#include "backend-engine/text/unicode.h"

namespace penstock::engine {
namespace {

constexpr bool StandsForItself(int byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) ||
         (byte >= 0xAE && byte <= 0xFF);
}

constexpr int kLastChar = 0x143;

struct Tables {
  std::array<char32_t, 256> to_char = {};
  std::array<int, kLastChar + 1> to_byte = {};
};

constexpr Tables MakeTables() {
  Tables tables;
  for (int& byte : tables.to_byte) byte = -1;
  char32_t next = 0x100;
  for (int byte = 0; byte < 256; ++byte) {
    const char32_t code = StandsForItself(byte) ? static_cast<char32_t>(byte) : next++;
    tables.to_char[static_cast<size_t>(byte)] = code;
    tables.to_byte[code] = byte;
  }
  return tables;
}

constexpr Tables kTables = MakeTables();

}  // namespace

char32_t ByteToChar(uint8_t byte) { return kTables.to_char[byte]; }

std::optional<std::string> BytesOfToken(std::string_view token) {
  std::string bytes;
  while (!token.empty()) {
    const DecodedChar next = DecodeChar(token);
    if (!next.valid || next.code > kLastChar || kTables.to_byte[next.code] < 0) {
      return std::nullopt;
    }
    bytes += static_cast<char>(kTables.to_byte[next.code]);
    token.remove_prefix(next.size);
  }
  return bytes;
}

}  // namespace penstock::engine
