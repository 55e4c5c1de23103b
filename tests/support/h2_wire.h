// HTTP/2 as bytes, made by hand: what a peer may send that no library would.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "proxy/http/h2_frames.h"

namespace penstock::h2 {

inline constexpr std::string_view kPreface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
inline constexpr uint8_t kEndStream = 0x1, kAck = 0x1, kEndHeaders = 0x4, kPadded = 0x8;

using Fields = std::vector<std::pair<std::string, std::string>>;

inline std::string Number(uint64_t value, int bytes) {
  std::string out;
  for (int i = bytes - 1; i >= 0; --i) out += static_cast<char>(value >> (8 * i));
  return out;
}

// Any type, any length: `length` is that of the payload unless told otherwise.
inline std::string Frame(uint8_t type, uint8_t flags, uint32_t stream, std::string_view payload,
                         int length = -1) {
  const uint64_t told = length < 0 ? payload.size() : static_cast<uint64_t>(length);
  return Number(told, 3) + Number(type, 1) + Number(flags, 1) + Number(stream, 4) +
         std::string(payload);
}

// HPACK: an integer of `prefix` bits below `first` (RFC 7541 5.1).
inline std::string Integer(uint8_t first, int prefix, uint64_t value) {
  const uint64_t most = (1u << prefix) - 1;
  if (value < most) return std::string(1, static_cast<char>(first | value));
  std::string out(1, static_cast<char>(first | most));
  for (value -= most; value >= 128; value /= 128) out += static_cast<char>(value % 128 | 128);
  return out + static_cast<char>(value);
}

inline std::string Text(std::string_view text) {
  return Integer(0, 7, text.size()) + std::string(text);
}

// Literal, never in the table.
inline std::string Literal(std::string_view name, std::string_view value) {
  return std::string(1, '\0') + Text(name) + Text(value);
}

inline std::string Block(const Fields& fields) {
  std::string out;
  for (const auto& [name, value] : fields) out += Literal(name, value);
  return out;
}

inline std::string Settings(const std::vector<std::pair<uint16_t, uint32_t>>& settings = {}) {
  std::string payload;
  for (const auto& [id, value] : settings) payload += Number(id, 2) + Number(value, 4);
  return Frame(4, 0, 0, payload);
}
inline std::string SettingsAck() { return Frame(4, kAck, 0, ""); }
// What every client begins with.
inline std::string Hello(const std::vector<std::pair<uint16_t, uint32_t>>& settings = {}) {
  return std::string(kPreface) + Settings(settings) + SettingsAck();
}

inline std::string Headers(uint32_t stream, const Fields& fields, uint8_t flags = kEndStream) {
  return Frame(1, flags | kEndHeaders, stream, Block(fields));
}
inline Fields Get(std::string_view path = "/") {
  return {{":method", "GET"}, {":scheme", "http"}, {":authority", "h"}, {":path", std::string(path)}};
}
inline Fields Post(std::string_view path = "/") {
  return {{":method", "POST"}, {":scheme", "http"}, {":authority", "h"}, {":path", std::string(path)}};
}
// `fields` with some more behind them.
inline Fields With(Fields fields, const Fields& more) {
  fields.insert(fields.end(), more.begin(), more.end());
  return fields;
}

inline std::string Data(uint32_t stream, std::string_view data, uint8_t flags = 0) {
  return Frame(0, flags, stream, data);
}
inline std::string Reset(uint32_t stream, uint32_t code) { return Frame(3, 0, stream, Number(code, 4)); }
inline std::string WindowUpdate(uint32_t stream, uint32_t more) {
  return Frame(8, 0, stream, Number(more, 4));
}
inline std::string Ping() { return Frame(6, 0, 0, "12345678"); }
inline std::string GoAway(uint32_t last, uint32_t code) {
  return Frame(7, 0, 0, Number(last, 4) + Number(code, 4));
}

}  // namespace penstock::h2
