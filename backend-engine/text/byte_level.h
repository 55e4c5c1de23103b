// The alphabet of byte-level BPE: each of the 256 bytes is written as one
// printable character, so that a vocabulary can be a JSON object. Printable
// Latin-1 stands for itself, the other 68 bytes for U+0100 onwards.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace penstock::engine {

char32_t ByteToChar(uint8_t byte);

// The bytes that `token` stands for; nullopt where a character is outside the
// alphabet, as in "<｜User｜>".
std::optional<std::string> BytesOfToken(std::string_view token);

}  // namespace penstock::engine
