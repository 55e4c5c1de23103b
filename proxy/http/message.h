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

// The first field with that id, or nullptr.
const Header* Find(std::span<const Header> headers, KnownHeader id);
// For fields that are not known; ASCII case-insensitive.
const Header* Find(std::span<const Header> headers, std::string_view name);

// Marks hop-by-hop fields as dropped (RFC 9110 7.6.1): Connection and whatever it
// names, Keep-Alive, Proxy-Connection, TE, Transfer-Encoding, Upgrade, Trailer,
// and Content-Length (a codec writes framing itself).
void DropHopByHop(std::span<Header> headers);

}  // namespace penstock
