// How much one connection's peer may ask of a codec, and what was wrong when it
// asked for more. Plain values.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "proxy/http/request_target.h"

namespace penstock {

// Beyond one of these below `unsent_bytes` the peer is flooding us, and the
// connection ends with GOAWAY(ENHANCE_YOUR_CALM).
struct H2Limits {
  uint32_t concurrent_streams = 100;          // Server role: announced. Client role: not exceeded.
  uint32_t stream_window = 64 * 1024;         // Body bytes of one message on their way to us.
  uint32_t connection_window = 1024 * 1024;   // Of all messages.
  uint32_t table_bytes = 4096;                // HPACK, each direction, whatever the peer offers.
  size_t unsent_bytes = 1024 * 1024;          // Above Codec::kUnsentMark: a body's that is still added to.

  uint32_t reset_burst = 200;                 // Resets by the peer, and ours that it caused.
  uint32_t resets_per_second = 20;
  uint32_t continuations = 8;                 // Of one header block.
  uint32_t control_frames = 1000;             // Answers that are due and not yet written by Pump().
  uint32_t outbound_frames = 10'000;          // Written and not yet taken from the gather.
  uint32_t empty_frames = 1;                  // In a row, that carry and end nothing.
  uint32_t priorities_per_stream = 100;       // n * (1 + streams)
  uint32_t window_updates_per_data = 10;      // 5 + 2 * (streams + n * DATA frames sent)
  uint32_t settings_entries = 32;             // Of one SETTINGS frame.
  uint32_t glitch_burst = 10'000;             // PING, SETTINGS, unknown and malformed frames.
  uint32_t glitches_per_second = 330;

  bool operator==(const H2Limits&) const = default;
};

struct CodecLimits {
  // Start line and fields of one message, trailers included. HTTP/2 counts 32 bytes
  // more a field, and counts a message's interim heads with it.
  size_t header_bytes = 60 * 1024;
  size_t header_count = 100;
  size_t request_line_bytes = 8 * 1024;
  size_t chunk_extension_bytes = 1024;        // Sum over one message.
  PathRule paths = PathRule::kNormalize;      // Server role.
  H2Limits h2;

  bool operator==(const CodecLimits&) const = default;
};

// What was wrong with the peer's bytes, and the status a server answers with.
struct ProtocolError {
  uint16_t status = 400;                      // 400, 405, 414, 417, 431, 501, 505; 502 in the client role.
  std::string_view code;                      // Stable word: "invalid_header", "headers_too_large", ...
  std::string message;                        // One line for people; never echoes raw bytes.
  std::string_view detail = {};               // Stable word: for "flood", which limit.
};

}  // namespace penstock
