// Parsed start lines and header fields, the same for HTTP/1 and HTTP/2. Plain
// values, no behaviour; views into storage of the codec that made them.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "proxy/http/known_headers.h"

namespace penstock {

struct Header {
  std::string_view name;                     // As received; compare by id or case-insensitively.
  std::string_view value;                    // Without surrounding white space.
  KnownHeader id = KnownHeader::kOther;
  bool dropped = false;                      // Set by whoever forwards: not written.
  bool line = false;                         // `name: value CR LF` stands so in the codec's storage.
};

// How a message's body ends.
enum class Framing : uint8_t {
  kNone,       // There is none.
  kLength,     // content_length bytes.
  kChunked,    // Chunked on HTTP/1, END_STREAM on HTTP/2.
  kUntilClose, // HTTP/1.0 and answers without framing.
};

struct RequestHead {
  std::string_view method;
  std::string_view target;                   // Origin form, as received: "/v1/models?x=1".
  std::string_view path;                     // `target` up to the query.
  std::string_view authority;                // Host or :authority.
  std::string_view scheme;                   // HTTP/2's :scheme; empty on HTTP/1.
  std::span<Header> headers;                 // HTTP/1: Host is among them.
  Framing framing = Framing::kNone;
  uint64_t content_length = 0;               // For kLength.
  uint8_t minor_version = 1;                 // HTTP/1.x; 1 for HTTP/2.
  bool keep_alive = true;
  bool expect_continue = false;
  bool upgrade = false;                      // Connection: upgrade with an Upgrade field.
};

struct ResponseHead {
  uint16_t status = 0;
  std::string_view reason;
  std::span<Header> headers;
  Framing framing = Framing::kNone;
  uint64_t content_length = 0;
  bool keep_alive = true;
};

// ASCII only, as header names and tokens are.
inline char ToLower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; }
bool EqualsIgnoringCase(std::string_view a, std::string_view b);
std::string_view TrimSpace(std::string_view text);   // Blanks and tabs, both ends.

// Calls `visit(token)` for each element of a comma-separated list; empty ones are skipped.
template <typename Visit>
void ForEachToken(std::string_view list, Visit visit) {
  while (!list.empty()) {
    const size_t comma = list.find(',');
    const std::string_view token = TrimSpace(list.substr(0, comma));
    if (!token.empty()) visit(token);
    if (comma == std::string_view::npos) return;
    list.remove_prefix(comma + 1);
  }
}

// The first field with that id, or nullptr.
const Header* Find(std::span<const Header> headers, KnownHeader id);
// For fields that are not known; ASCII case-insensitive.
const Header* Find(std::span<const Header> headers, std::string_view name);

// Marks hop-by-hop fields as dropped (RFC 9110 7.6.1): Connection and whatever it
// names, Keep-Alive, Proxy-Connection, TE, Transfer-Encoding, Upgrade, Trailer,
// and Content-Length (a codec writes framing itself). Fields that a message cannot
// do without stay, whatever Connection names (IsProtected).
bool IsProtected(KnownHeader id);
void DropHopByHop(std::span<Header> headers);

// Marks what must not stand in trailers (RFC 9110 6.5.1), where it comes too late or
// past whoever checks it: framing, routing, credentials, what a body is, how an
// answer is kept.
void DropFromTrailers(std::span<Header> trailers);
// A client says so with TE (RFC 9110 10.1.4).
bool TakesTrailers(std::span<const Header> headers);

}  // namespace penstock
