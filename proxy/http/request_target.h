// What a request asks for: one normaliser for the paths of HTTP/1 and HTTP/2, before
// anything is decided by them. What is routed is, byte for byte, what is forwarded, so
// nobody behind us can read another path out of it than we did.
//
// Refused in any case: control characters, blanks, '#', '\', bytes that are not ASCII,
// '%' without two digits, and escaped slashes, backslashes and NULs. Escapes of
// characters that need none (RFC 3986 2.3) are decoded, the others get upper-case
// digits: both spellings are the same path for every reader.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "proxy/http/message.h"

namespace penstock {

struct ProtocolError;

// What happens to "//", "." and "..", which readers understand differently.
enum class PathRule : uint8_t {
  kNormalize,  // "//" becomes "/", dot segments are resolved; ".." above the root: 400.
  kStrict,     // 400.
};

// Checks `head.target` ("/path?query", or "*" for OPTIONS), sets head.path, and puts a
// target that had to be rewritten into `storage`, where head.target then points.
// Methods that make a proxy something else (CONNECT, TRACE) are 405.
std::optional<ProtocolError> ReadTarget(RequestHead& head, PathRule rule, std::string& storage);

// Host, optional port; no user information, no path.
bool IsAuthority(std::string_view text);

}  // namespace penstock
