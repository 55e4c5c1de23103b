// What a parsed HTTP/1 head means, and which heads are refused although their
// bytes parse: everything that two readers could understand differently.
// Pure functions; the codec calls them once a head is complete.
#pragma once

#include <optional>

#include "proxy/http/codec.h"

namespace penstock {

// Fills path, authority, framing, content_length, keep_alive, expect_continue and
// upgrade from method, target, headers and minor_version. `target` in absolute
// form becomes origin form, with its authority in place of Host's.
// `storage` holds a target that had to be rewritten.
std::optional<ProtocolError> ReadRequestHead(RequestHead& head, PathRule rule, std::string& storage);

// Fills framing, content_length and keep_alive; `to_head`: it answers a HEAD request.
std::optional<ProtocolError> ReadResponseHead(ResponseHead& head, int minor_version, bool to_head);

// Fields that may not come as trailers (framing, routing, credentials) are dropped.
void DropForbiddenTrailers(std::span<Header> trailers);

// The status line's phrase; "" for an unknown status.
std::string_view ReasonPhrase(uint16_t status);

}  // namespace penstock
